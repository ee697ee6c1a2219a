"""Names of files that are made of names in data, and which files are our own results.

What recordings, arms and tasks are called comes from files and configs, and may be anything. A name
becomes a part of a path through :func:`file_name` alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

EXPERIMENT, SPLITS = "experiment.json", "splits.json"
"""What every directory of results holds: what was learned from, and its parts."""
PREDICTIONS = "predictions.csv"
"""Every answer of a decoder, or of all decoders of a run."""
DECODERS, MOVIE, NEURONS = "decoders", "movie", "neurons.npz"
"""Folders and a file of a run whose arrays are no recordings."""

_LONGEST = 130
"""Bytes; encrypted file systems allow 143, of which an ending may take some."""
_KEPT = frozenset(f"{ascii_lowercase}{digits}_-+@=,. ")
_RESERVED = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)))
)
"""Names of devices on Windows, whatever ending follows."""


def file_name(*names: str, marks_case: bool = True) -> str:
    """A name of a file or folder, without an ending, for any texts.

    Small letters, digits and ``_ - + @ = , .`` and inner spaces stay as they are; all else is
    written as in web addresses (``M1/a`` becomes ``%4d1%2fa``), so ``urllib.parse.unquote`` gives
    the text back. Different names give different files on every file system: also where case, or
    the form of Unicode, makes no difference, and for names that Windows reserves. Names of more
    than 130 bytes keep their beginning and end in a hash, which cannot be turned back.

    Args:
        names: Texts, none of them empty; several are joined by ``__``.
        marks_case: Write capitals as in web addresses, too; if not, names that differ in case
            alone are one file on some file systems.

    Raises:
        ValueError: If a name is empty.
    """
    if not all(names):
        raise ValueError(f"A file cannot have an empty name, got {names}. Give it a name.")
    whole = "__".join(_quote(name, marks_case, is_joined=len(names) > 1) for name in names)
    if len(whole) <= _LONGEST:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return f"{whole[: _LONGEST - 33]}~{digest}"


def _quote(name: str, marks_case: bool, is_joined: bool) -> str:
    """One name; of joined ones none holds ``__`` or ends in ``_``, so that they can be parted."""
    letters = [letter if letter in _KEPT else _percent(letter) for letter in name]
    if not marks_case:
        letters = [
            old if old in ascii_uppercase else new for old, new in zip(name, letters, strict=True)
        ]
    is_device = name.split(".")[0].rstrip(" ").lower() in _RESERVED
    if is_device or name[0] in "-. ":
        letters[0] = _percent(name[0])
    if name[-1] in ". ":
        letters[-1] = _percent(name[-1])
    if is_joined:
        following = [*name[1:], "_"]
        letters = [
            _percent("_") if old == "_" == after else new
            for old, new, after in zip(name, letters, following, strict=True)
        ]
    return "".join(letters)


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))


def fit_folder(task: str, units: str, arm: str, labels: str, seed: int) -> str:
    """Path of what one fit left, below its run's directory.

    Args:
        task: Name of the task.
        units: The subset of units.
        arm: Name of the arm.
        labels: Text of the budget of labels, such as ``100%``.
        seed: Number of the seed.
    """
    budget = f"labels-{labels.removesuffix('%').replace(' ', '-')}"
    names = "/".join(file_name(name) for name in (task, units, arm, budget))
    return f"{DECODERS}/{names}/seed-{seed}"


def is_own_result(path: Path) -> bool:
    """Whether a file is an array that a run saved, which is no recording."""
    of_runs = [folder.parent for folder in path.parents if folder.name in (DECODERS, MOVIE)]
    of_runs += [path.parent] * (path.name == NEURONS)
    return any((run / EXPERIMENT).is_file() and (run / SPLITS).is_file() for run in of_runs)
