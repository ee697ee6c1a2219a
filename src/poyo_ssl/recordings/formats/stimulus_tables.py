"""Tables of presentations, whatever file lists them."""

from __future__ import annotations

import codecs
import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.recordings.columns import TOO_LARGE
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import StimulusTable
from poyo_ssl.recordings.untrusted_files.absent import explain_os_error

logger = logging.getLogger(__name__)

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", ",": "commas"}


def read_stimulus_files(
    folder: Path, tables: Mapping[str, StimulusTable], imaged: tuple[float, float]
) -> dict[str, pd.DataFrame]:
    """Reads the CSV and TSV files that list the presentations of stimuli.

    Args:
        folder: What the names of the files are relative to.
        tables: Stimulus name to its file and the names of its columns.
        imaged: First and last time of the traces in seconds.

    Returns:
        Stimulus name to table, as documented in ``Recording.stimuli``.

    Raises:
        RecordingError: If files are missing or not of this form; every one is named.
    """
    found, problems = {}, []
    for name, table in tables.items():
        path = folder / table.table
        try:
            found[name] = read_presentations(read_table(path), table, imaged, f"'{path}'")
        except RecordingError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise RecordingError("\n".join(problems))
    return found


def read_presentations(
    stored: Mapping[str, np.ndarray],
    table: StimulusTable,
    imaged: tuple[float, float],
    where: str,
) -> pd.DataFrame:
    """The presentations that a table lists and the traces cover; see :meth:`StimulusTable.read`.

    Raises:
        RecordingError: If the table is not of its stated form, or the traces cover none of it.
    """
    presentations = table.read(stored, where)
    shown = keep_imaged(presentations, imaged, where) if len(presentations) else presentations
    if shown.empty:
        times = presentations[["start", "end"]]
        listed = f"from {times.min().min()} to {times.max().max()} s" if len(times) else "none"
        raise RecordingError(
            f"{where} lists no presentation while the traces were recorded, from {imaged[0]:.1f} "
            f"to {imaged[1]:.1f} s (it lists {listed}). Are all times in seconds of the same clock?"
        )
    return shown


_ASK_FOR_UNITS = (
    " Most do. Are its times in seconds of the same clock, and not in imaging frames? These are "
    "divided by the sampling rate."
)


def keep_imaged(table: pd.DataFrame, imaged: tuple[float, float], what: str) -> pd.DataFrame:
    """The presentations that at least touch the traces, in order of time.

    Args:
        table: One row per presentation with ``start`` and ``end`` in seconds; a row without
            times is left out, too.
        imaged: First and last time of the traces in seconds.
        what: File and stimulus, for the warning and the error.

    Raises:
        RecordingError: If most lie outside, but would not if their times were in ms, µs or ns.
    """
    first, last = imaged
    keep = (table["end"] > first) & (table["start"] <= last)
    if keep.mean() < 0.5:
        _refuse_other_units_of_time(table, imaged, what)
    if not keep.all():
        logger.warning(
            "%s: %d of %d presentations lie outside the traces (%.1f to %.1f s) or have no times; "
            "left out.%s",
            what,
            (~keep).sum(),
            len(table),
            first,
            last,
            _ASK_FOR_UNITS if keep.mean() < 0.5 else "",
        )
    return table[keep].sort_values("start", kind="stable", ignore_index=True)


def _refuse_other_units_of_time(
    table: pd.DataFrame, imaged: tuple[float, float], what: str
) -> None:
    first, last = imaged
    for unit, per_second in (("ms", 1e3), ("µs", 1e6), ("ns", 1e9)):
        start, end = table["start"] / per_second, table["end"] / per_second
        would_fit = ((end > first) & (start <= last)).mean()
        if would_fit > 0.9 and start.max() > first + 0.1 * (last - first):
            raise RecordingError(
                f"{what}: its times are in {unit}, as it seems: it lists presentations until "
                f"{table['end'].max():g}, and the traces end at {last:.1f} s. Divide its times by "
                f"{per_second:g}."
            )


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV or TSV file by name.

    Raises:
        RecordingError: If the file is missing, or no table with one line of column names.
    """
    separator = _SEPARATORS.get(path.suffix.lower())
    if separator is None:
        raise RecordingError(
            f"'{path}' is not named as a table is: with commas .csv, with tabs .tsv or .txt."
        )
    try:
        text = decode_text(path.read_bytes())
        _refuse_other_separators(path, text, separator)
        header, table = _parse(path, text, separator)
    except OSError as error:
        plain = (
            f"'{path.absolute()}' cannot be opened: {error.strerror or error}. Put the table "
            "there, or correct its name in the source's stimuli."
        )
        raise RecordingError(explain_os_error(path.absolute(), error) or plain) from error
    except RecordingError:
        raise
    except (ValueError, csv.Error) as error:  # no text, no columns, no end of a quotation
        raise RecordingError(
            f"'{path}' is no table with one line of column names: {str(error).strip()}."
        ) from error
    return {
        str(name): table[name].to_numpy()
        for name, written in zip(table, header, strict=True)
        if written  # else nobody can ask for it: an index, or a comma behind the last name
    }


def decode_text(content: bytes) -> str:
    """The text of a file in UTF-8, or in what its byte order mark says, with plain line ends."""
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {content[error.start]:#04x} in line {content[: error.start].count(10) + 1} is "
            f"no {encoding.upper()}. Save it as 'CSV UTF-8'"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refuse_other_separators(path: Path, text: str, separator: str) -> None:
    """Checks that lines are not divided by another character than the file's name says."""
    lines = [line for line in text.splitlines() if line.strip()][:2]
    if not lines or separator in lines[0]:
        return
    for other, name in _SEPARATOR_NAMES.items():
        if all(other in line for line in lines):
            raise RecordingError(
                f"'{path}' is separated by {name}, but a table named {path.suffix} by "
                f"{_SEPARATOR_NAMES[separator]}. Save it with those (and a point in decimal "
                "numbers), or name it .csv for commas, .tsv for tabs."
            )


def _parse(path: Path, text: str, separator: str) -> tuple[list[str], pd.DataFrame]:
    """The names of the columns as they are written, without spaces around them, and the table.

    Empty values behind the last column, of lines that end in a separator where the header does
    not, are left out: pandas would take the first column for an index, and shift all others.
    """
    clean = io.StringIO()
    writer = csv.writer(clean)
    header: list[str] = []
    lines = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    for values in lines:
        if not any(value.strip() for value in values):
            continue
        if not header:
            values = header = [value.strip() for value in values]
            twice = sorted({name for name in header if name and header.count(name) > 1})
            if twice:
                raise RecordingError(
                    f"'{path}' has several columns called {', '.join(twice)}. Give each a name of "
                    "its own."
                )
        beyond = [value for value in values[len(header) :] if value.strip()]
        if beyond:
            raise RecordingError(
                f"'{path}': line {lines.line_num} has {len(values)} values but the header names "
                f"{len(header)} columns: {', '.join(header)}. Name every column, or remove "
                f"{', '.join(map(repr, beyond))}."
            )
        writer.writerow(values[: len(header)])
    clean.seek(0)
    table = pd.read_csv(clean)
    # an empty cell among whole numbers makes pandas round them all
    rounded = [
        name
        for name in table
        if table[name].dtype.kind == "f" and (table[name].abs() >= TOO_LARGE).any()
    ]
    if rounded:
        clean.seek(0)
        table = pd.read_csv(clean, dtype=dict.fromkeys(rounded, str))
    return header, table
