"""Which traces of an NWB 2 file are those of a recording, and how they become ΔF/F."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import DTypeLike

from poyo_ssl.recordings.formats.fluorescence import compute_df_over_f
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text, has_dataset, read_numbers

logger = logging.getLogger(__name__)

_DF_OVER_F_NAME = re.compile(
    r"^((d|delta|Δ|∆)[ _]?f[ _]?((o(ver)?|by|/)[ _]?)?f[ _]?0?|dff)([ _]?(traces?|series))?$",
    re.IGNORECASE,
)
_DERIVED_NAME = re.compile(r"event|deconv|spike", re.IGNORECASE)
_CORRECTED_NAME = re.compile(r"corrected", re.IGNORECASE)
_BACKGROUND_NAME = re.compile(r"neuropil|background", re.IGNORECASE)


def find_series(file: h5py.File, wanted: str | None) -> tuple[h5py.Group, str]:
    """The RoiResponseSeries that holds the activity of the recording.

    That is the one that ``wanted`` names, or else the only ΔF/F; in a file without ΔF/F the only
    fluorescence whose name or interface says ``corrected`` (for neuropil); without that the only
    fluorescence. Detected events, deconvolved traces and neuropil are never chosen unasked.

    Args:
        file: An open NWB 2 file.
        wanted: Path of a series or its last parts.

    Returns:
        The series, and what tells it from others of its kind if it was asked for: the parts of
        its path that they do not share, else empty.

    Raises:
        RecordingError: If there is none, or several and none was asked for; all are named.
    """
    responses = _list_responses(file)
    if wanted is not None:
        parts = wanted.strip("/").split("/")
        found = [item for item in responses if item.name.split("/")[-len(parts) :] == parts]
    else:
        found = _choose(responses)
    if len(found) == 1:
        return found[0], "" if wanted is None else _label(found[0], responses)
    names = ", ".join(item.name for item in found or responses) or "none"
    if found:
        raise RecordingError(
            f"'{file.filename}' holds several {'' if wanted else _kind(found[0])}series"
            f"{f' that end in {wanted!r}' if wanted else ''}: {names}. A recording is one imaging "
            "plane: choose one by its path, nwb.series of the source."
        )
    if wanted is not None:
        raise RecordingError(
            f"'{file.filename}' has no RoiResponseSeries '{wanted}' (found: {names}). Correct the "
            "source's nwb.series."
        )
    modules = ", ".join(file["processing"]) or "none"
    raise RecordingError(
        f"'{file.filename}' has no ΔF/F and no fluorescence (processing modules: {modules}; "
        f"RoiResponseSeries: {names}). Give the file that holds the extracted traces, or name "
        "the right series in the source's nwb.series."
    )


def read_traces(
    series: h5py.Group, source: SourceConfig, cells: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The activity of ROIs of a series, and when it was imaged.

    - Fluorescence is turned into ΔF/F, with a line in the log.
    - An array that is ROIs x time is transposed if the number of ROIs and of timestamps leave no
      doubt, with a warning.

    Args:
        series: A RoiResponseSeries.
        source: What its traces are, and how fluorescence becomes ΔF/F.
        cells: Positions of the ROIs that are read; None for all.

    Returns:
        ΔF/F, shape (num_timesteps, num_units), float32, and the times in seconds.
    """
    where = f"{series.file.filename}: {series.name}"
    traces = _read_array(series)
    timestamps = read_imaging_times(series, len(traces))
    traces = traces if cells is None else traces[:, cells]
    activity = source.nwb.activity or ("df_over_f" if _is_df_over_f(series) else "fluorescence")
    if activity == "fluorescence":
        _refuse_df_over_f(traces, source, where)
        baseline = source.fluorescence
        logger.warning(
            "%s is %sfluorescence; ΔF/F is computed with percentile %g of %g s as baseline. If it "
            "is ΔF/F already, set activity of the source's nwb to df_over_f.",
            where,
            "" if _CORRECTED_NAME.search(_own_names(series)) else "uncorrected ",
            baseline.baseline_percentile,
            baseline.baseline_window,
        )
        traces = compute_df_over_f(
            traces,
            float(1.0 / np.median(np.diff(timestamps))),
            baseline_percentile=baseline.baseline_percentile,
            baseline_window=baseline.baseline_window,
            where=where,
        )
    return traces, timestamps


def _refuse_df_over_f(traces: np.ndarray, source: SourceConfig, where: str) -> None:
    """Checks that traces that nobody called fluorescence are not ΔF/F under another name.

    Light is positive, and its baseline lies far above zero. ΔF/F lies around zero; so may
    fluorescence from which too much neuropil was subtracted, which needs its owner's word.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of units without any sample
        low, middle, high = np.nanpercentile(traces, (5, 50, 95), axis=0)
    is_around_zero = (low < 0) & (np.abs(middle) < high - low)
    if source.nwb.activity is None and is_around_zero.mean() > 0.5:
        raise RecordingError(
            f"{where} is called fluorescence, but {is_around_zero.sum()} of {len(middle)} traces "
            f"lie around zero (medians from {np.nanmin(middle):.3g} to {np.nanmax(middle):.3g}), "
            "as ΔF/F does and light cannot. Say what it is: set activity of the source's nwb to "
            "df_over_f, or to fluorescence."
        )


def read_imaging_times(series: h5py.Group, num_timesteps: int) -> np.ndarray:
    """The times of the traces in seconds, shape (num_timesteps,), all of them known.

    Raises:
        RecordingError: If there are none, or some are NaN or infinite.
    """
    times = read_timestamps(series, num_timesteps)
    unknown = np.flatnonzero(~np.isfinite(times))
    if len(unknown):
        raise RecordingError(
            f"'{series.file.filename}': {len(unknown)} of {len(times)} times of {series.name} are "
            f"NaN or infinite, the first at timestep {unknown[0]}. Export the file again with the "
            "times of all timesteps."
        )
    return times


def read_timestamps(series: h5py.Group, num_samples: int) -> np.ndarray:
    """The times of a TimeSeries in seconds, shape (num_samples,).

    NWB stores them as an array (possibly a link to that of another series), or as
    ``starting_time`` with a rate.

    Raises:
        RecordingError: If the series has neither.
    """
    if has_dataset(series, "timestamps"):
        times = read_numbers(series["timestamps"])
        return times.ravel() if times.size in times.shape else times
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


def read_series(series: h5py.Group, dtype: DTypeLike = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """The values of a TimeSeries in its stated unit, samples first, and their times in seconds.

    Raises:
        RecordingError: If it has more or fewer times than samples.
    """
    values = read_values(series, dtype)
    times = read_timestamps(series, len(values))
    if len(times) != len(values):
        raise RecordingError(
            f"'{series.file.filename}': {series.name} has {len(values)} samples but {len(times)} "
            "timestamps. Write the file again with arrays that belong together."
        )
    return values, times


def read_values(series: h5py.Group, dtype: DTypeLike = np.float64) -> np.ndarray:
    """The data of a TimeSeries in its stated unit: ``data * conversion + offset``.

    Raises:
        RecordingError: If the data are missing or no numbers.
    """
    if not has_dataset(series, "data"):
        raise RecordingError(
            f"'{series.file.filename}': {series.name} has no data (found: {', '.join(series)}). "
            "Export the file again with its traces."
        )
    data = series["data"]
    values = read_numbers(data, dtype)
    factor, offset = (float(data.attrs.get(name, 0)) for name in ("conversion", "offset"))
    if np.isfinite(factor) and factor not in (0.0, 1.0):  # 0 and NaN: not stated
        values *= factor
    if np.isfinite(offset) and offset != 0.0:
        values += offset
    return values


def neurodata_type(item: h5py.Group | h5py.Dataset) -> str:
    """What NWB calls the kind of an object; empty if it does not say."""
    return as_text(item.attrs.get("neurodata_type", ""))


def _list_responses(file: h5py.File) -> list[h5py.Group]:
    responses: list[h5py.Group] = []

    def collect(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if neurodata_type(item) == "RoiResponseSeries" and isinstance(item, h5py.Group):
            responses.append(item)

    file["processing"].visititems(collect)
    return responses


def _choose(responses: Sequence[h5py.Group]) -> list[h5py.Group]:
    signals = [item for item in responses if not _is_derived(item)]
    corrected = [item for item in signals if _CORRECTED_NAME.search(_own_names(item))]
    raw = [item for item in signals if not _BACKGROUND_NAME.search(_own_names(item))]
    return [item for item in signals if _is_df_over_f(item)] or corrected or raw


def _is_df_over_f(series: h5py.Group) -> bool:
    own, interface = series.name.rpartition("/")[2], series.parent.name.rpartition("/")[2]
    unit = series["data"].attrs.get("unit", "") if has_dataset(series, "data") else ""
    names = (own, interface, as_text(unit).strip())
    is_named_so = any(_DF_OVER_F_NAME.match(name) is not None for name in names)
    return neurodata_type(series.parent) == "DfOverF" or is_named_so


def _is_derived(series: h5py.Group) -> bool:
    return _DERIVED_NAME.search(_own_names(series)) is not None


def _own_names(series: h5py.Group) -> str:
    """The names of a series and of the interface that it lies in."""
    return "/".join(series.name.split("/")[-2:])


def _kind(series: h5py.Group) -> str:
    return "ΔF/F " if _is_df_over_f(series) else "fluorescence "


def _label(series: h5py.Group, responses: Sequence[h5py.Group]) -> str:
    """The parts of the path of a series that the others of its kind do not share."""
    own = series.name.split("/")
    others = [
        item.name.split("/")
        for item in responses
        if item != series and _kind(item) == _kind(series) and not _is_derived(item)
    ]
    if not others:
        return ""
    first = _num_shared([own, *others])
    last = _num_shared([path[::-1] for path in (own, *others)])
    return "-".join(own[first : len(own) - last] or own[1:])


def _num_shared(paths: Sequence[Sequence[str]]) -> int:
    """How many first parts all paths have in common."""
    levels = enumerate(zip(*paths, strict=False))
    return next((place for place, parts in levels if len(set(parts)) > 1), min(map(len, paths)))


def _read_array(series: h5py.Group) -> np.ndarray:
    """The values as (num_timesteps, num_units), float32, the right way round."""
    traces = read_values(series, np.float32)
    num_rois = series["rois"].size if has_dataset(series, "rois") else None
    num_times = series["timestamps"].size if has_dataset(series, "timestamps") else None
    if traces.size == 0 or num_rois == 0:
        raise RecordingError(
            f"'{series.file.filename}': {series.name} is empty (shape {traces.shape}, {num_rois} "
            "ROIs). No cell was found, or the extraction failed; leave this file out."
        )
    if traces.ndim == 1:
        traces = traces[:, None]
    if _is_transposed(traces.shape, num_times, num_rois, f"{series.file.filename}: {series.name}"):
        return np.ascontiguousarray(traces.T)
    return traces


def _is_transposed(
    shape: tuple[int, ...], num_times: int | None, num_rois: int | None, where: str
) -> bool:
    """Whether traces are ROIs x time, judged by what the file says of their numbers.

    Args:
        shape: Shape of the stored traces.
        num_times: How many timestamps the file has for them, None if it does not list them.
        num_rois: How many ROIs, None if unknown.
        where: File and series, for the warning and the error.

    Raises:
        RecordingError: If the shape fits neither way.
    """

    def fits(timesteps: int, units: int) -> bool:
        return num_times in (None, timesteps) and num_rois in (None, units)

    if len(shape) == 2 and fits(*shape):
        return False
    if len(shape) == 2 and fits(*shape[::-1]):
        logger.warning("%s of shape %s is ROIs x time; transposed.", where, shape)
        return True
    raise RecordingError(
        f"{where} has shape {shape} but the file has "
        f"{'unknown' if num_times is None else num_times} timestamps and "
        f"{'unknown' if num_rois is None else num_rois} ROIs for it. The shape must be "
        "(timesteps, ROIs); write the file again with arrays that belong together."
    )
