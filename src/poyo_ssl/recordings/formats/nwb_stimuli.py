"""What an NWB 2 file says about the stimuli: tables of presentations and the pictures shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.nwb_traces import neurodata_type, read_series
from poyo_ssl.recordings.formats.stimulus_tables import keep_imaged, read_presentations
from poyo_ssl.recordings.presentations import (
    BLANK_FLAGS,
    mark_blank_sweeps,
    warn_of_long_presentations,
)
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import StimulusTable
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text, has_dataset, read_numbers

logger = logging.getLogger(__name__)

_INTERVAL_TABLES = {
    "drifting_gratings": {
        "orientation": "orientation_in_degrees",
        "temporal_frequency": "temporal_frequency_in_hz",
        "spatial_frequency": "spatial_frequency_in_cycles_per_degree",
    },
    "static_gratings": {
        "orientation": "orientation_in_degrees",
        "spatial_frequency": "spatial_frequency_in_cycles_per_degree",
        "phase": "phase",
    },
    "spontaneous": {},
}
"""Stimulus to its columns in a ``Recording`` and their names in DANDI:000728."""
MOVIES = ("natural_movie_one", "natural_movie_two", "natural_movie_three")
"""Stimuli of movie frames."""
IMAGES = (
    "natural_scenes",
    "locally_sparse_noise",
    "locally_sparse_noise_4deg",
    "locally_sparse_noise_8deg",
)
"""Stimuli of single pictures."""
_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey value, ITU-R BT.601


def read_stimuli(
    file: h5py.File, imaged: tuple[float, float], mapped: Mapping[str, StimulusTable]
) -> dict[str, pd.DataFrame]:
    """The stimulus tables of an NWB file, as documented in ``Recording.stimuli``.

    Presentations may overlap (static gratings of DANDI:000728 do, by parts of a timestep) and
    stand in any order.

    Args:
        file: An open NWB 2 file.
        imaged: First and last time of the traces in seconds. Presentations wholly outside are
            left out.
        mapped: Stimulus name to the table that its owner says lists it.

    Returns:
        Stimulus name to table, each in order of time.

    Raises:
        RecordingError: If a mapped table cannot be read, or a presentation ends before it starts.
    """
    tables = {}
    for name, group in _presentations(file):
        table = None if name in mapped else _read_table(name, group)
        if table is not None:
            tables[name] = keep_imaged(table, imaged, f"{file.filename}: {name}")
    tables = {name: table for name, table in tables.items() if len(table)}
    tables |= read_mapped_stimuli(file, imaged, mapped)
    if not tables:
        logger.info(
            "%s: no stimulus table that is known (TimeIntervals in the file: %s). Name those to "
            "read in the source's stimuli.",
            file.filename,
            ", ".join(_list_interval_tables(file)) or "none",
        )
    return tables


def read_mapped_stimuli(
    file: h5py.File, imaged: tuple[float, float], mapped: Mapping[str, StimulusTable]
) -> dict[str, pd.DataFrame]:
    """The tables that the source's owner named, wherever they lie in the file.

    Raises:
        RecordingError: If a table or one of its columns is missing or of the wrong kind.
    """
    tables = {}
    for name, listed in mapped.items():
        group = file.get(listed.table)
        if not isinstance(group, h5py.Group):
            raise RecordingError(
                f"'{file.filename}' has no table '{listed.table}', which the source's stimuli "
                f"give for {name} (TimeIntervals in the file: "
                f"{', '.join(_list_interval_tables(file)) or 'none'})."
            )
        columns = _table_columns(group, listed.needed_columns)
        where = f"'{file.filename}': {group.name}"
        tables[name] = read_presentations(columns, listed, imaged, where)
    return tables


def _table_columns(group: h5py.Group, needed: Collection[str]) -> dict[str, h5py.Dataset]:
    """Columns of a table by name: those needed, and all with one value per row but its number."""
    columns = {name: item for name, item in group.items() if isinstance(item, h5py.Dataset)}
    return {
        name: column
        for name, column in columns.items()
        if name in needed
        or (
            f"{name}_index" not in columns
            and neurodata_type(column) not in ("VectorIndex", "ElementIdentifiers")
        )
    }


def read_templates(file: h5py.File) -> dict[str, np.ndarray]:
    """The pictures of movies, scenes and noise, as documented in ``Recording.templates``."""
    templates = {}
    shown = dict(_presentations(file))
    for name in (*MOVIES, *IMAGES):
        group = _find_template(file, name, shown.get(name))
        if group is not None:
            pictures = read_pictures(group)
            if pictures is not None:
                templates[name] = pictures
        elif name in shown:
            logger.info("%s: no template of %s.", file.filename, name)
    return templates


def _presentations(file: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    """Stimulus names, without the suffix that some carry, and their groups."""
    presentation = file.get("stimulus/presentation")
    if presentation is None:
        return
    for name, group in presentation.items():
        if isinstance(group, h5py.Group):
            yield name.removesuffix("_stimulus"), group


def _read_table(name: str, group: h5py.Group) -> pd.DataFrame | None:
    """A presentation of the layout of DANDI:000728; None if it is of another kind."""
    if name in _INTERVAL_TABLES:
        return _read_interval_table(group, _INTERVAL_TABLES[name])
    if name in MOVIES or name in IMAGES:
        return index_table(name, *read_series(group, group["data"].dtype))
    logger.info("%s: stimulus '%s' is not read.", group.file.filename, name)
    return None


def _list_interval_tables(file: h5py.File) -> list[str]:
    found: list[str] = []

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if neurodata_type(item) == "TimeIntervals":
            found.append(name)

    file.visititems(collect)
    return found


def _read_interval_table(group: h5py.Group, columns: dict[str, str]) -> pd.DataFrame | None:
    """A TimeIntervals table; the parameters of blank sweeps become NaN."""
    where = f"'{group.file.filename}': {group.name}"
    times = {"start": "start_time", "end": "stop_time"}
    untimed = [name for name in times.values() if not has_dataset(group, name)]
    if untimed:
        logger.warning(
            "%s is left out, it lacks %s (found: %s).", where, ", ".join(untimed), ", ".join(group)
        )
        return None
    names = {
        ours: theirs if has_dataset(group, theirs) else ours for ours, theirs in columns.items()
    }
    missing = [columns[ours] for ours, theirs in names.items() if not has_dataset(group, theirs)]
    if missing:
        logger.warning(
            "%s lacks %s (found: %s); what is there is read. If it is there under another name, "
            "name the table and its columns in the source's stimuli.",
            where,
            ", ".join(missing),
            ", ".join(group),
        )
    found = {ours: theirs for ours, theirs in names.items() if has_dataset(group, theirs)}
    others = {name: name for name in (*BLANK_FLAGS, "contrast") if has_dataset(group, name)}
    table = pd.DataFrame(
        {ours: read_numbers(group[theirs]) for ours, theirs in (times | found | others).items()}
    )
    refuse_backward_rows(table, where)
    warn_of_long_presentations(table, where)
    return mark_blank_sweeps(table, where).drop(columns=list(others))


def refuse_backward_rows(table: pd.DataFrame, where: str) -> None:
    """Checks that presentations end after they start; those without times are left to others.

    Raises:
        RecordingError: With the number of the first row that does not, counted from 0.
    """
    backward = np.flatnonzero((table["end"] <= table["start"]).to_numpy())
    if len(backward):
        start, end = table.loc[backward[0], ["start", "end"]]
        raise RecordingError(
            f"{where}: row {backward[0]} starts at {start} s but ends at {end} s "
            f"({len(backward)} such rows). Correct the times or take out the rows."
        )


def index_table(name: str, stored: np.ndarray, start: np.ndarray) -> pd.DataFrame:
    """Presentations of single pictures, in the form of ``Recording.stimuli``.

    Only onsets are known. A picture lasts until the next onset; the last one of a block, and
    the last of all, lasts for the median. A new repeat of a movie begins wherever the number of
    the movie frame falls back.

    Args:
        name: The stimulus: one of :data:`MOVIES` or :data:`IMAGES`.
        stored: Number of the picture, shape (num_presentations,); a blank sweep has -1, or the
            largest value of an unsigned type, to which -1 was cast.
        start: Onsets in seconds, shape (num_presentations,).
    """
    number = stored.astype(np.float64)
    is_blank = ~((number >= 0) & (number < np.iinfo(np.int32).max))
    if stored.dtype.kind == "u":
        is_blank |= stored == np.iinfo(stored.dtype).max
    picture = np.where(is_blank, 0, number).astype(np.int64)
    picture[is_blank] = -1
    is_timed = np.isfinite(start)
    order = np.flatnonzero(is_timed)[np.argsort(start[is_timed], kind="stable")]
    start, picture = start[order], picture[order]
    usual = float(np.median(np.diff(start))) if len(start) > 1 else 0.0
    next_start = np.append(start[1:], np.inf)
    end = np.where(next_start - start > 1.5 * usual, start + usual, next_start)
    table = pd.DataFrame({"start": start, "end": end, "image": picture})
    if name in IMAGES:
        return table
    table = table[picture >= 0].rename(columns={"image": "movie_frame"})
    falls_back = table["movie_frame"].diff() < 0
    return table.assign(repeat=falls_back.cumsum().astype(np.int64)).reset_index(drop=True)


def refuse_unknown_pictures(
    stimuli: Mapping[str, pd.DataFrame], templates: Mapping[str, np.ndarray], filename: str
) -> None:
    """Checks that every picture shown is one of the template's, where there is one.

    Raises:
        RecordingError: If a table refers to more pictures than there are.
    """
    for name in set(stimuli) & set(templates):
        shown = stimuli[name]["movie_frame" if name in MOVIES else "image"].to_numpy()
        unknown = np.flatnonzero(shown >= len(templates[name]))
        if len(unknown):
            raise RecordingError(
                f"'{filename}': presentation {unknown[0]} of {name} shows picture "
                f"{shown[unknown[0]]}, but its template has {len(templates[name])} "
                f"({len(unknown)} such presentations). Write the file again with the whole "
                "template, or without it."
            )


def _find_template(file: h5py.File, name: str, shown: h5py.Group | None) -> h5py.Group | None:
    for link in ("indexed_timeseries", "indexed_images"):
        if shown is not None and isinstance(shown.get(link), h5py.Group):
            return shown[link]
    for path in (f"stimulus/templates/{name}", f"stimulus/templates/{name}_template"):
        if isinstance(file.get(path), h5py.Group):
            return file[path]
    return None


def read_pictures(group: h5py.Group) -> np.ndarray | None:
    """An ImageSeries or an Images container as grey uint8 (num_pictures, height, width)."""
    where = f"{group.file.filename}: {group.name}"
    if has_dataset(group, "data"):
        pictures = group["data"][()]
    else:
        single = [group[name][()] for name in _picture_order(group)]
        shapes = {picture.shape for picture in single}
        if len(shapes) != 1:
            logger.warning("%s is left out: its pictures have shapes %s.", where, sorted(shapes))
            return None
        pictures = np.stack(single)
    if pictures.ndim == 4 and pictures.shape[-1] in (3, 4):
        grey = np.rint(pictures[..., :3] @ np.array(_LUMA))
    else:
        grey = pictures
    is_grey = grey.ndim == 3 and grey.size > 0 and grey.dtype.kind in "fiu"
    if is_grey and grey.dtype != np.uint8:
        # some sources hold grey values from 0 to 255 in a wider type
        is_grey = bool(np.all((grey >= 0) & (grey <= 255) & (grey == np.rint(grey))))
    if not is_grey:
        logger.warning(
            "%s is left out: %s of shape %s are not grey pictures from 0 to 255.",
            where,
            pictures.dtype,
            pictures.shape,
        )
        return None
    return grey.astype(np.uint8)


def _picture_order(group: h5py.Group) -> list[str]:
    """Names of the images in a container in the order that indices count them."""
    names = [
        name
        for name, item in group.items()
        if isinstance(item, h5py.Dataset)
        and "Image" in as_text(item.attrs.get("neurodata_type", ""))
        and as_text(item.attrs["neurodata_type"]) != "ImageReferences"
    ]
    if has_dataset(group, "order_of_images"):
        ordered = [
            (group.file[reference].name or "").rpartition("/")[2]
            for reference in group["order_of_images"][()]
        ]
        if set(ordered) <= set(names):
            return ordered
    return sorted(names, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])
