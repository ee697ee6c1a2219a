"""HDF5 files of programs that are not read: what they are, and two lines that convert them."""

from __future__ import annotations

from typing import NamedTuple

import h5py


class _Foreign(NamedTuple):
    """A file of another program."""

    program: str
    traces: str
    """Name of its traces."""
    is_units_first: bool
    """Whether h5py reads them as units x time."""


_KNOWN = (
    _Foreign("EXTRACT", "output/temporal_weights", True),
    _Foreign("EXTRACT (CIAtah)", "extractAnalysisOutput/traces", False),
    _Foreign("CNMF-E (CIAtah)", "cnmfeAnalysisOutput/extractedSignals", False),
    _Foreign("PCA-ICA (CIAtah)", "pcaicaAnalysisOutput/IcaTraces", False),
    _Foreign("suite2p for MATLAB", "F", True),
)


def describe_foreign(file: h5py.File) -> str:
    """What an HDF5 file is that no reader knows, and how to convert it."""
    name = file.filename
    for known in _KNOWN:
        if isinstance(file.get(known.traces), h5py.Dataset) and file[known.traces].ndim == 2:
            turned = ".T" if known.is_units_first else ""
            return (
                f"'{name}' is an output of {known.program}, which is not read as it is: it does "
                f"not tell the imaging rate. Convert it: with h5py.File('{name}') as file: "
                f"np.savez('day1.npz', df_over_f=file['{known.traces}'][()]{turned}, "
                "sampling_rate=...), the rate in Hz."
            )
    what = "a file of MATLAB 7.3" if "#refs#" in file or _is_matlab(file) else "HDF5"
    return (
        f"'{name}' is {what} but neither NWB nor a torch-brain recording (found at its root: "
        f"{', '.join(file) or 'nothing'}). Convert it to NWB 2, or save its arrays as .npz: "
        "np.savez('day1.npz', df_over_f=..., sampling_rate=...), timesteps x units, the rate in Hz."
    )


def _is_matlab(file: h5py.File) -> bool:
    return any("MATLAB_class" in item.attrs for item in file.values())
