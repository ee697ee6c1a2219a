"""What CaImAn saves of an analysis, as a recording."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.stimulus_tables import read_stimulus_files
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.untrusted_files.hdf5 import has_dataset, open_hdf5, read_numbers

logger = logging.getLogger(__name__)

_TRACES = "estimates/F_dff"
_RATE = "params/data/fr"
_ACCEPTED = "estimates/idx_components"


def read_caiman(path: str | Path, source: SourceConfig) -> Recording:
    """Reads the ΔF/F of the components that an analysis of CaImAn accepted.

    - ΔF/F is ``estimates.F_dff``, the imaging rate ``params.data['fr']``; the first imaging frame
      is at 0 s.
    - Components are those of ``estimates.idx_components``, or all where none was evaluated.
    - ``recording_id`` is the name of the file, ``unit_id`` is ``<recording_id>/<component>``.

    Args:
        path: The HDF5 file that ``cnm.save`` wrote.
        source: Tables of the stimuli, relative to the file's folder.

    Raises:
        RecordingError: If the file is damaged, or holds no ΔF/F or no rate.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        df_over_f = _read_df_over_f(file)
        components = _read_components(file, len(df_over_f))
        rate = float(read_numbers(file[_RATE]).ravel()[0]) if _holds_numbers(file, _RATE) else 0.0
        if not 0 < rate < np.inf:
            raise RecordingError(
                f"'{path}' has no imaging rate ({_RATE}). Set cnm.params.data['fr'] in Hz and save "
                "it again."
            )
    recording = Recording(
        recording_id=path.stem,
        df_over_f=np.ascontiguousarray(df_over_f[components].T),
        timestamps=np.arange(df_over_f.shape[1]) / rate,
        units=pd.DataFrame({"unit_id": [f"{path.stem}/{number}" for number in components]}),
        source=str(path),
    )
    imaged = (0.0, float(recording.timestamps[-1]))
    return replace(recording, stimuli=read_stimulus_files(path.parent, source.stimuli, imaged))


def is_caiman(file: h5py.File) -> bool:
    """Whether an open HDF5 file is an analysis of CaImAn."""
    return all(isinstance(file.get(name), h5py.Group) for name in ("estimates", "params/data"))


def _holds_numbers(file: h5py.File, name: str) -> bool:
    """Whether there are numbers under a name; CaImAn saves what it has not as text."""
    return has_dataset(file, name) and file[name].dtype.kind in "iuf" and file[name].size > 0


def _read_df_over_f(file: h5py.File) -> np.ndarray:
    """(num_components, num_timesteps), float32."""
    if not _holds_numbers(file, _TRACES):
        raise RecordingError(
            f"'{file.filename}' is an analysis of CaImAn without ΔF/F ({_TRACES}). Run "
            "cnm.estimates.detrend_df_f() and save it again."
        )
    df_over_f = read_numbers(file[_TRACES], np.float32)
    if df_over_f.ndim != 2 or df_over_f.shape[1] < 2:
        raise RecordingError(
            f"'{file.filename}': {_TRACES} has shape {df_over_f.shape}; components x timesteps are "
            "needed. Save the analysis again."
        )
    return df_over_f


def _read_components(file: h5py.File, num_components: int) -> np.ndarray:
    """The components that were accepted, increasing; all where nobody evaluated them."""
    if not (has_dataset(file, _ACCEPTED) and file[_ACCEPTED].dtype.kind in "iuf"):
        logger.info("%s: its components were never evaluated; all are read.", file.filename)
        return np.arange(num_components)
    accepted = np.unique(read_numbers(file[_ACCEPTED]).ravel())
    if not len(accepted):
        raise RecordingError(f"'{file.filename}': no component was accepted ({_ACCEPTED}).")
    if not np.all((accepted == np.rint(accepted)) & (accepted >= 0) & (accepted < num_components)):
        raise RecordingError(
            f"'{file.filename}': {_ACCEPTED} counts up to {accepted.max():g}, but there are "
            f"{num_components} components. Evaluate them and save the analysis again."
        )
    logger.info("%s: %d of %d components.", file.filename, len(accepted), num_components)
    return accepted.astype(np.int64)


CAIMAN = Format(
    name="CaImAn",
    read=read_caiman,
    names_units_after_file=True,
    suffixes=(".hdf5",),
    recognises_hdf5=is_caiman,
)
