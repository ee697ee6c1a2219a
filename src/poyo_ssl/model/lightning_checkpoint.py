"""Weights and hyperparameters out of a Lightning checkpoint, without running any of it.

A checkpoint is a pickle, a program that may call any function it names. torch reads one with a
list of what may be called (``weights_only``); whatever else the file names, such as a config of
OmegaConf or text of numpy, is stood in for here: by an inert note of what it would have been made
from, or by the plain text and numbers themselves.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.model.checkpoints import CheckpointError

_MALFORMED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_DEEPEST = 50  # dicts inside dicts of hyperparameters


class LightningCheckpoint(NamedTuple):
    """What a checkpoint holds besides the state of its training."""

    tensors: dict[str, Tensor]
    """The state dict's weights and buffers."""
    vocabularies: dict[str, dict[str, int]]
    """The state dict's other entries: name to word to row."""
    hyperparameters: dict[str, Any]
    """Plain dicts, lists, text and numbers; what was anything else is None."""


class _Inert:
    """Stands for an object that is not made: keeps the state it would have been given."""

    args: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *args: Any) -> _Inert:
        made = super().__new__(cls)  # an unpickler may call nothing else
        made.args = args
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _number_or_text(dtype: Any, data: Any) -> Any:
    """A numpy scalar as the plain value that it is; None for other kinds."""
    code = dtype.args[0] if isinstance(dtype, _Inert) and dtype.args else None
    kind = np.dtype(code) if isinstance(code, str) and code[:1] in "biufU" else None
    if kind is None or not isinstance(data, bytes) or len(data) != kind.itemsize:
        return None
    return np.frombuffer(data, kind)[0].item() if kind.itemsize else ""


def _dict(*_: Any) -> dict[Any, Any]:
    return {}


_STAND_INS: dict[str, Callable[..., Any]] = {
    "collections.defaultdict": _dict,
    "lightning.fabric.utilities.data.AttributeDict": dict,
    "lightning_fabric.utilities.data.AttributeDict": dict,
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
    "numpy.core.multiarray.scalar": _number_or_text,
    "numpy._core.multiarray.scalar": _number_or_text,
}
"""What is stood in for by plain values; an inert note stands for everything else."""


def read_lightning_checkpoint(path: str | Path) -> LightningCheckpoint:
    """Reads a checkpoint that Lightning, or ``torch.save`` of a dict with a ``state_dict``, wrote.

    No code that the file names is imported or called. Tensors are mapped from the disk.

    Raises:
        CheckpointError: If the file is missing, damaged, no such checkpoint, or names a module of
            the system.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file '{path}'. Give a Lightning checkpoint (.ckpt).")
    try:
        content = _load(path)
    except _MALFORMED as error:
        first = str(error).strip().split("\n")[-1][:200] or type(error).__name__
        raise CheckpointError(
            f"'{path}' is not read: it is damaged, no checkpoint of torch, or holds what no "
            f"checkpoint needs ({first}). Nothing in it was run. Download or save it again."
        ) from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        found = ", ".join(map(str, content))[:200] if isinstance(content, dict) else type(content)
        raise CheckpointError(
            f"'{path}' has no state_dict (found: {found}). Give a checkpoint that Lightning wrote."
        )
    return LightningCheckpoint(
        tensors={name: value for name, value in state.items() if isinstance(value, Tensor)},
        vocabularies={
            name: {_plain(word): row for word, row in value.items()}
            for name, value in state.items()
            if isinstance(value, Mapping)
        },
        hyperparameters=_plain(content.get("hyper_parameters")) or {},
    )


def _load(path: Path) -> Any:
    """The pickled content, with stand-ins for all that torch does not know to be harmless."""
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_STAND_INS.get(name, _Inert), name) for name in unknown
    ]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as plain dicts, lists, text and numbers; containers of OmegaConf are opened."""
    if isinstance(value, _Inert):
        state = value.state if isinstance(value.state, dict) else {}
        value = state.get("_content", state.get("_val"))
    if depth > _DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value if isinstance(value, str | int | float | bool) else None


def mappings_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every dict in plain hyperparameters, outer ones first."""
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from mappings_in(item)
