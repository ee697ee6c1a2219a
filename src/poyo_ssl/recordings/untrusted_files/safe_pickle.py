"""Plain values out of a pickled file that came from elsewhere, without running any of it.

A pickle is a program: loading it calls whatever functions it names. suite2p keeps its settings in
one, so they are read with stand-ins: every object of the file becomes an inert note of what it
would have been made from, and only plain values and numbers are taken out.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.absent import explain_os_error
from poyo_ssl.recordings.untrusted_files.numpy_files import read_header

Read = TypeVar("Read")

_LARGEST_FILE = 2**28  # bytes; suite2p keeps a dozen pictures beside its settings, some 20 MB
_NUMBER = re.compile("b1|[iu][1248]|f[248]")
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


class _Inert:
    """Stands for an object that is not made: keeps what it would have been made from."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertArray(_Inert):
    """A numpy array: its state is (version, shape, dtype, order, list or bytes)."""


class _InertScalar(_Inert):
    """A numpy number: made from its dtype and bytes."""


class _InertBuffer(_Inert):
    """A numpy array of protocol 5: made from (bytes, dtype, shape, order)."""


def _latin1_bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    """Bytes as protocols 0 to 2 write them: the text that has one character for each."""
    if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
        raise TypeError("bytes are written as text in latin1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Inert,
    ("numpy", "dtype"): _Inert,
    ("_codecs", "encode"): _latin1_bytes,
    ("collections", "OrderedDict"): dict,
    ("collections", "defaultdict"): _Inert,
    **{("datetime", name): _Inert for name in ("date", "datetime", "timedelta", "timezone")},
}
for _module in ("__builtin__", "builtins"):  # Python 2 and 3
    _STAND_INS[_module, "bytes"] = _latin1_bytes  # only empty ones are written so
    for _name in ("bytearray", "complex", "frozenset", "object", "range", "set", "slice", "xrange"):
        _STAND_INS[_module, _name] = _Inert
for _module in ("copy_reg", "copyreg"):
    _STAND_INS[_module, "_reconstructor"] = _Inert
for _package in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _STAND_INS[f"{_package}.multiarray", "_reconstruct"] = _InertArray
    _STAND_INS[f"{_package}.multiarray", "scalar"] = _InertScalar
    _STAND_INS[f"{_package}.numeric", "_frombuffer"] = _InertBuffer
for _module in ("pathlib", "pathlib._local"):  # until and since Python 3.13
    for _name in ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"):
        _STAND_INS[_module, _name] = _Inert


class _Unpickler(pickle.Unpickler):
    """Builds lists, dicts, text and numbers; puts stand-ins for what numpy and paths are."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _STAND_INS:
            wanted = f"{module}.{name}"[:80]
            raise RecordingError(
                f"it asks to run {wanted!r}, which no settings need. Nothing was run."
            )
        return _STAND_INS[module, name]


def read_settings(path: Path) -> dict[str, Any]:
    """The dict that a ``.npy`` file holds, as suite2p writes ``ops.npy`` and ``settings.npy``.

    Text, numbers, lists and dicts come out as they are; arrays, dates and paths as inert objects
    (see :func:`as_number`). No code that the file names is imported or called.

    Raises:
        RecordingError: If the file is missing, too large, damaged, holds no dict, or names a
            function or class that settings do not need.
    """
    shape, values = read_objects(path)
    if shape != () or not isinstance(values[0], dict):
        raise RecordingError(f"'{path}' is not read: it holds no dict. Settings are one dict.")
    settings: dict[str, Any] = values[0]
    return settings


def read_records(path: Path) -> list[dict[str, Any]]:
    """The dicts of an array that a ``.npy`` file holds, as suite2p writes ``stat.npy``.

    What is in them comes out as from :func:`read_settings`.

    Raises:
        RecordingError: If the file is missing, too large, damaged, holds no dicts, or names a
            function or class that they do not need.
    """
    shape, values = read_objects(path)
    if len(shape) != 1 or not all(isinstance(value, dict) for value in values):
        raise RecordingError(f"'{path}' is not read: it holds no row of dicts, one for each ROI.")
    return values


def read_objects(path: Path) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and values, in C order, of a ``.npy`` file of Python objects, as inert as settings.

    Raises:
        RecordingError: If the file is missing, too large, damaged, holds no objects, or names a
            function or class that plain values do not need.
    """
    try:
        return _unpickle(*_read_pickle(path))
    except RecordingError as error:
        raise RecordingError(f"'{path}' is not read: {error}") from error
    except OSError as error:
        plain = f"'{path}' cannot be opened: {error.strerror or error}."
        raise RecordingError(explain_os_error(path, error) or plain) from error
    except _MALFORMED as error:
        raise RecordingError(
            f"'{path}' is not read: it is damaged, or no file of settings "
            f"({type(error).__name__}). Copy it again."
        ) from error


def as_number(value: Any) -> float | None:
    """A number, plain or numpy's, or an array of one number; None for anything else."""
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 64):
        return float(value)
    if isinstance(value, _InertScalar) and len(value.args) == 2:
        return _decode(*value.args)
    if isinstance(value, _InertArray) and isinstance(value.state, tuple) and len(value.state) == 5:
        return _decode(value.state[2], value.state[4])
    if isinstance(value, _InertBuffer) and len(value.args) == 4:
        return _decode(value.args[1], value.args[0])
    return None


def _read_pickle(path: Path) -> tuple[tuple[int, ...], bytes]:
    """Shape of a ``.npy`` file of Python objects, and what follows its header."""
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise RecordingError(
            f"it has {size} bytes; settings have at most {_LARGEST_FILE}. Remove it, or give the "
            "option that it is read for."
        )
    with path.open("rb") as handle:
        shape, dtype = read_header(handle)
        if dtype != np.dtype(object):
            raise RecordingError(f"it holds {dtype} of shape {shape}; settings are one dict.")
        return shape, handle.read()


def _unpickle(shape: tuple[int, ...], data: bytes) -> tuple[tuple[int, ...], list[Any]]:
    for opcode, argument, _ in pickletools.genops(data):
        # these numbers make the unpickler reserve memory before it looks at the data
        reserves = "PUT" in opcode.name or opcode.name == "FRAME"
        if reserves and isinstance(argument, int) and argument > len(data):
            raise RecordingError("it asks for more memory than it has data for. It is damaged.")
    # the text of Python 2 is bytes, of which every one is a character of latin1
    array = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    state = array.state if isinstance(array, _InertArray) else None
    if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], list)):
        raise RecordingError("it holds no array of plain values. It is damaged.")
    content: list[Any] = state[4]  # in C order, whatever the order in memory was
    if len(content) != math.prod(shape) or min(shape, default=0) < 0:
        raise RecordingError("it holds other values than its header says. It is damaged.")
    return shape, content


def _decode(dtype: Any, data: Any) -> float | None:
    """The one number in the bytes, or None if they are not one number."""
    code = dtype.args[0] if isinstance(dtype, _Inert) and dtype.args else None
    if isinstance(data, str):  # written by Python 2
        data = _latin1_bytes(data)
    if not (isinstance(code, str) and _NUMBER.fullmatch(code)):
        return None
    if not isinstance(data, bytes | bytearray):
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    number = np.dtype(code).newbyteorder(">" if order == ">" else "<")
    return float(np.frombuffer(data, number)[0]) if len(data) == number.itemsize else None
