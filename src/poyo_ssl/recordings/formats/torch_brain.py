"""Recordings that were stored in torch-brain's HDF5 form, by us or by brainsets."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py

from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import open_recording

logger = logging.getLogger(__name__)


def read_stored(path: str | Path, source: SourceConfig) -> Recording:
    """Opens a stored recording; see :func:`~poyo_ssl.recordings.storage.open_recording`.

    Args:
        path: The file.
        source: Its stimuli are not read, with a warning: a stored recording keeps its own.

    Raises:
        RecordingError: If the file is damaged or of another form.
    """
    if source.stimuli:
        logger.warning(
            "'%s' is a stored recording and keeps its stimuli: the source's tables of %s are not "
            "read. Prepare it from its original again, with this source.",
            path,
            ", ".join(source.stimuli),
        )
    return open_recording(path)


def is_torch_brain(file: h5py.File) -> bool:
    """Whether an open HDF5 file is a torch-brain recording."""
    return bool(file.attrs.get("object") == "Data")


TORCH_BRAIN = Format(
    name="torch-brain",
    read=read_stored,
    names_units_after_file=False,
    suffixes=(".h5", ".hdf5"),
    recognises_hdf5=is_torch_brain,
)
