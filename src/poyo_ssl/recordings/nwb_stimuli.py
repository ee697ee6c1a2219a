"""What an NWB 2 file says about the stimuli: tables of presentations and the pictures shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.hdf5 import as_text, has_dataset
from poyo_ssl.recordings.recording import RecordingError

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
_MOVIES = ("natural_movie_one", "natural_movie_two", "natural_movie_three")
_SCENES = "natural_scenes"
_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey value, ITU-R BT.601


def read_stimuli(file: h5py.File, imaged: tuple[float, float]) -> dict[str, pd.DataFrame]:
    """The stimulus tables of an NWB file, as documented in ``Recording.stimuli``.

    Args:
        file: An open NWB 2 file.
        imaged: First and last time of the traces in seconds. Presentations wholly outside are
            left out.

    Returns:
        Stimulus name to table, each in order of time.
    """
    tables = {}
    for name, group in _presentations(file):
        if name in _INTERVAL_TABLES:
            table = _read_interval_table(group, _INTERVAL_TABLES[name])
        elif name in _MOVIES:
            table = _read_movie_table(group)
        elif name == _SCENES:
            table = _read_scenes_table(group)
        else:
            logger.info("%s: stimulus '%s' is not read.", file.filename, name)
            continue
        if table is not None:
            table = _keep_imaged(table, imaged, f"{file.filename}: {name}")
            if len(table):
                tables[name] = table
    if not tables:
        logger.info("%s: no stimulus table that could be read.", file.filename)
    return tables


def read_templates(file: h5py.File) -> dict[str, np.ndarray]:
    """The pictures of movies and scenes, as documented in ``Recording.templates``."""
    templates = {}
    shown = dict(_presentations(file))
    for name in (*_MOVIES, _SCENES):
        group = _find_template(file, name, shown.get(name))
        if group is not None:
            pictures = _read_pictures(group)
            if pictures is not None:
                templates[name] = pictures
        elif name in shown:
            logger.info("%s: no template of %s.", file.filename, name)
    return templates


def read_timestamps(series: h5py.Group, num_samples: int) -> np.ndarray:
    """The times of a TimeSeries in seconds, shape (num_samples,).

    NWB stores them as an array (possibly a link to that of another series), or as
    ``starting_time`` with a rate.

    Raises:
        RecordingError: If the series has neither.
    """
    if has_dataset(series, "timestamps"):
        return series["timestamps"][()].astype(np.float64)
    if has_dataset(series, "starting_time"):
        rate = float(series["starting_time"].attrs.get("rate", np.nan))
        if rate > 0:
            return float(series["starting_time"][()]) + np.arange(num_samples) / rate
    link = series.get("timestamps", getlink=True)
    found = (
        f"a link to {link.path}, which is missing" if isinstance(link, h5py.SoftLink) else "none"
    )
    raise RecordingError(
        f"'{series.file.filename}': {series.name} has no usable times (timestamps: {found}; "
        "starting_time with a rate: none). Export the file again with the times of this series."
    )


def read_values(series: h5py.Group) -> np.ndarray:
    """The data of a TimeSeries in its stated unit: ``data * conversion + offset``."""
    data = series["data"]
    values = data[()]
    factor, offset = data.attrs.get("conversion", 1.0), data.attrs.get("offset", 0.0)
    if factor != 1.0 or offset != 0.0:
        values = values * values.dtype.type(factor) + values.dtype.type(offset)
    return values


def _presentations(file: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    """Stimulus names, without the suffix that some carry, and their groups."""
    presentation = file.get("stimulus/presentation")
    if presentation is None:
        return
    for name, group in presentation.items():
        if isinstance(group, h5py.Group):
            yield name.removesuffix("_stimulus"), group


def _read_interval_table(group: h5py.Group, columns: dict[str, str]) -> pd.DataFrame | None:
    """A TimeIntervals table; the parameters of blank sweeps become NaN."""
    needed = ["start_time", "stop_time", *columns.values()]
    missing = [name for name in needed if not has_dataset(group, name)]
    if missing:
        logger.warning(
            "%s: %s is left out, it lacks %s (found: %s).",
            group.file.filename,
            group.name,
            ", ".join(missing),
            ", ".join(group),
        )
        return None
    names = {"start": "start_time", "end": "stop_time", **columns}
    table = pd.DataFrame(
        {ours: group[theirs][()].astype(np.float64) for ours, theirs in names.items()}
    )
    if has_dataset(group, "is_blank_sweep"):
        table.loc[group["is_blank_sweep"][()].astype(bool), list(columns)] = np.nan
    return table


def _read_index_series(group: h5py.Group) -> pd.DataFrame:
    """Presentations of single pictures: ``start``, ``end`` and ``picture`` (-1: blank).

    Only onsets are stored. A picture lasts until the next onset; the last one of a block, and
    the last of all, lasts for the median.
    """
    stored = group["data"][()]
    picture = stored.astype(np.int64)
    # -1 that was cast to an unsigned type has become the largest value of that type
    is_blank = (picture < 0) | (picture >= np.iinfo(np.int32).max)
    if stored.dtype.kind == "u":
        is_blank |= stored == np.iinfo(stored.dtype).max
    picture[is_blank] = -1
    start = read_timestamps(group, len(picture))
    is_timed = np.isfinite(start)
    order = np.flatnonzero(is_timed)[np.argsort(start[is_timed], kind="stable")]
    start, picture = start[order], picture[order]
    usual = float(np.median(np.diff(start))) if len(start) > 1 else 0.0
    next_start = np.append(start[1:], np.inf)
    end = np.where(next_start - start > 1.5 * usual, start + usual, next_start)
    return pd.DataFrame({"start": start, "end": end, "picture": picture})


def _read_movie_table(group: h5py.Group) -> pd.DataFrame:
    """Movie frames; a new repeat begins wherever the frame number falls back."""
    table = _read_index_series(group)
    table = table[table["picture"] >= 0].rename(columns={"picture": "movie_frame"})
    falls_back = table["movie_frame"].diff() < 0
    return table.assign(repeat=falls_back.cumsum().astype(np.int64)).reset_index(drop=True)


def _read_scenes_table(group: h5py.Group) -> pd.DataFrame:
    return _read_index_series(group).rename(columns={"picture": "image"})


def _keep_imaged(table: pd.DataFrame, imaged: tuple[float, float], what: str) -> pd.DataFrame:
    """The rows that at least touch the traces, in order of time."""
    first, last = imaged
    keep = (table["end"] > first) & (table["start"] <= last)
    if not keep.all():
        logger.warning(
            "%s: %d of %d presentations lie outside the traces (%.1f to %.1f s) or have no times; "
            "left out.",
            what,
            (~keep).sum(),
            len(table),
            first,
            last,
        )
    return table[keep].sort_values("start", kind="stable").reset_index(drop=True)


def _find_template(file: h5py.File, name: str, shown: h5py.Group | None) -> h5py.Group | None:
    for link in ("indexed_timeseries", "indexed_images"):
        if shown is not None and isinstance(shown.get(link), h5py.Group):
            return shown[link]
    for path in (f"stimulus/templates/{name}", f"stimulus/templates/{name}_template"):
        if isinstance(file.get(path), h5py.Group):
            return file[path]
    return None


def _read_pictures(group: h5py.Group) -> np.ndarray | None:
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
    is_grey = grey.ndim == 3 and grey.size > 0
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
