"""Arguments and options of another kind than is asked for, refused in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

_WHOLE = ("int", "int | None")
"""How the types of fields that count something are written."""
_MOST = 80
"""Characters of a text that a message repeats."""


def require_kind(given: object, kinds: type | tuple[type, ...], how: str) -> None:
    """Checks what a public function is given.

    Args:
        given: The argument.
        kinds: What it may be.
        how: Where the right kind comes from, as a sentence.

    Raises:
        TypeError: If it is something else.
    """
    if not isinstance(given, kinds):
        names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
        raise TypeError(f"Needed is a {' or '.join(names)}, got {_describe(given)}. {how}")


def as_list(given: Any, kinds: type | tuple[type, ...], how: str) -> list[Any]:
    """Several of a kind as a list; one alone is taken, too.

    Raises:
        TypeError: If there is something else among them.
    """
    is_several = isinstance(given, Iterable) and not isinstance(given, (str, kinds))
    found = list(given) if is_several else [given]
    for one in found:
        require_kind(one, kinds, how)
    return found


def require_numbers(config: Any) -> None:
    """Checks that the numbers of a config are finite, and whole where they count something.

    A limit that is NaN would limit nothing: every comparison with it is false.

    Args:
        config: A dataclass.

    Raises:
        ValueError: If one is not; it is named.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field.name} must be a finite number, got {value}.")
        if isinstance(value, float) and field.type in _WHOLE:
            raise ValueError(f"{field.name} must be a whole number, got {value}.")


def _describe(given: object) -> str:
    name = type(given).__name__
    if isinstance(given, str | Path):
        return f"the path or text {str(given)!r:.{_MOST}}"
    if isinstance(given, list | tuple):
        return f"a {name} of {len(given)}{f' {type(given[0]).__name__}' if given else ''}"
    return "None" if given is None else f"a {name}"
