"""Sweeps in config files: a list of values where an option takes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import isclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

_SINGLE = (str, int, float, bool, Path, type(None))


def find_sweeps(
    values: Mapping[str, Any], config: type, group: str = ""
) -> Iterator[tuple[str, list[Any]]]:
    """Names of options that have a list of values and take one, and the lists.

    Args:
        values: What a config file holds, or a group of it.
        config: The dataclass that it fills; what else the file holds is left out.
        group: The group's name with a dot, or nothing.
    """
    hints = get_type_hints(config)
    for name in [field.name for field in fields(config) if field.name in values]:
        value, types = values[name], _alternatives(hints[name])
        if isinstance(value, list) and all(map(_is_single, types)):
            yield group + name, value
        elif isinstance(value, Mapping):
            for part in filter(_is_config, types):
                yield from find_sweeps(value, part, f"{group}{name}.")
            for part in [get_args(t)[1] for t in types if get_origin(t) is dict]:
                for key, within in value.items():
                    if _is_config(part) and isinstance(within, Mapping):
                        yield from find_sweeps(within, part, f"{group}{name}.{key}.")


def _alternatives(hint: Any) -> Sequence[Any]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]


def _is_config(hint: Any) -> TypeGuard[type]:
    return isclass(hint) and is_dataclass(hint)


def _is_single(hint: Any) -> bool:
    return hint in _SINGLE or get_origin(hint) is Literal


def holds(values: Any, option: str) -> bool:
    """Whether a tree of values by name has one of an option."""
    for name in option.split("."):
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True


def put(values: Mapping[str, Any], option: str, value: Any) -> dict[str, Any]:
    """The same tree with another value of an option."""
    name, _, rest = option.partition(".")
    return {**values, name: put(values[name], rest, value) if rest else value}
