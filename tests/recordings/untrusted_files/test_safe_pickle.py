"""Settings come out of a pickle; nothing that a pickle asks for is ever run."""

from __future__ import annotations

import codecs
import datetime
import io
import os
import pathlib
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.safe_pickle import as_number, read_settings

OPS = {
    "fs": 30.5,
    "nplanes": 1,
    "meanImg": np.zeros((4, 5), np.float32),
    "filelist": ["a.tif"],
    "save_path0": pathlib.PurePosixPath("/data/day3"),
    "first_tiffs": np.array([True, False]),
    "yrange": np.array([[1, 2], None], dtype=object),
    "date_proc": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "timing": OrderedDict(registration=3.0),
    "nested": {"diameter": [12, 12]},
}


def header(shape: tuple[int, ...] = (), descr: str = "|O") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def write(folder: Path, pickled: bytes) -> Path:
    path = folder / "ops.npy"
    path.write_bytes(header() + pickled)
    return path


def save(folder: Path, content: Any) -> Path:
    path = folder / "ops.npy"
    np.save(path, content, allow_pickle=True)
    return path


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_plain_values_come_out_as_numpy_itself_reads_them(tmp_path):
    found = read_settings(save(tmp_path, OPS))
    assert found.keys() == OPS.keys()
    for name in ("fs", "nplanes", "filelist", "timing", "nested"):
        assert found[name] == OPS[name]


@pytest.mark.parametrize(
    "value",
    [30, 30.0, np.float32(30), np.float64(30), np.int64(30), np.array(30.0), np.array([[30.0]]),
     np.array([30], dtype=">i2")],
)  # fmt: skip
def test_a_number_is_found_in_whatever_form_it_was_kept(tmp_path, value):
    assert as_number(read_settings(save(tmp_path, {"fs": value}))["fs"]) == 30.0


@pytest.mark.parametrize(
    "value", [None, "30", [30], {}, np.array([30.0, 31.0]), np.array([None]), np.complex64(30),
              10**400, np.str_("30"), np.array([[1, 2]], dtype=object)]
)  # fmt: skip
def test_what_is_no_number_is_none(tmp_path, value):
    assert as_number(read_settings(save(tmp_path, {"fs": value}))["fs"]) is None


def test_files_of_numpy_1_are_read(tmp_path):
    path = save(tmp_path, {"fs": np.float64(20)})
    content = path.read_bytes().replace(
        b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"
    )
    # the frame's length is one byte less
    start = content.index(b"\x95") + 1
    length = struct.unpack("<Q", content[start : start + 8])[0]
    path.write_bytes(content[:start] + struct.pack("<Q", length - 1) + content[start + 8 :])
    assert as_number(read_settings(path)["fs"]) == 20.0


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])
def test_settings_of_every_pickle_protocol_are_read(tmp_path, protocol, module):
    """numpy below 1.17 wrote protocol 2, in which bytes are text that '_codecs.encode' turns."""
    array = np.empty((), dtype=object)
    array[()] = OPS | {
        "empty": b"",
        "raw": b"\xff\x00",
        "gains": {1, 2},
        "z": 1j,
        "crop": slice(3),
        "rates": [np.float64(30.5), np.array([30.5]), np.array(30.5)],
    }
    pickled = pickle.dumps(array, protocol=protocol)
    if protocol < 4 and module == "numpy.core":  # there the length of a name is not written
        pickled = pickled.replace(b"numpy._core", b"numpy.core")
    found = read_settings(write(tmp_path, pickled))
    assert found["fs"] == 30.5
    assert found["filelist"] == ["a.tif"]
    assert [as_number(rate) for rate in found["rates"]] == [30.5] * 3
    assert found["empty"] == b""
    assert found["raw"] == b"\xff\x00"


def test_settings_of_python_2_are_read(tmp_path):
    """Its text is bytes: those of a number are no ASCII."""
    pickled = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01)cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK?tb\x89]}U\x02fscnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n"
        b"U\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"U\x08" + struct.pack("<d", 29.97) + b"\x86Rsatb."
    )
    assert as_number(read_settings(write(tmp_path, pickled))["fs"]) == 29.97


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("call", [("rot13", "text"), ("text", "zlib_codec"), (b"text", "hex")])
def test_no_other_codec_than_that_of_bytes_is_run(tmp_path, protocol, call):
    array = np.empty((), dtype=object)
    array[()] = {"fs": Bomb(codecs.encode, *call)}
    with pytest.raises(RecordingError, match="not read"):
        read_settings(write(tmp_path, pickle.dumps(array, protocol=protocol)))


@pytest.mark.parametrize(
    "bomb",
    [
        Bomb(os.mkdir, "executed"),
        Bomb(exec, "import os; os.mkdir('executed')"),
        Bomb(getattr, [], "append"),
        Bomb(np.load, "executed.npy"),
        Bomb(__import__, "antigravity"),
    ],
)
@pytest.mark.parametrize("place", ["top", "value", "array", "key"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_bomb_is_refused_and_does_not_run(tmp_path, monkeypatch, bomb, place, protocol):
    monkeypatch.chdir(tmp_path)
    content = {
        "top": bomb,
        "value": {"fs": bomb},
        "array": {"x": np.array([{"y": np.array([bomb, None], dtype=object)}], dtype=object)},
        "key": {"fs": 30.0, bomb: 1},
    }[place]
    path = tmp_path / "ops.npy"
    array = np.empty((), dtype=object)
    array[()] = content
    path.write_bytes(header() + pickle.dumps(array, protocol=protocol))
    with pytest.raises(RecordingError, match=r"asks to run .* Nothing was run"):
        read_settings(path)
    assert os.listdir(tmp_path) == ["ops.npy"]


class Subclass(np.ndarray):
    """An array of a class of the file's own."""


@pytest.mark.parametrize(
    "reduced",
    [
        # room for a terabyte; a shape with fewer objects than it says; a dtype that claims its
        # integers are pointers: each would harm a process that lets numpy rebuild the array
        (np.zeros(0).__reduce__()[0], (np.ndarray, (2**37,), b"d")),
        (np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"),
         (1, (2**20,), np.dtype("O"), False, [1])),
        (np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 63)),
        (np.float64(0).__reduce__()[0], (Bomb(np.dtype, "b4", False, True), bytes(4))),
    ],
)  # fmt: skip
def test_no_array_of_the_file_is_rebuilt(tmp_path, reduced):
    class Crafted:
        def __reduce__(self):
            return reduced

    path = save(tmp_path, {"fs": 30.0, "x": Crafted()})
    tracemalloc.start()
    assert read_settings(path)["fs"] == 30.0
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert as_number(read_settings(path)["x"]) is None


def test_a_class_of_the_file_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="Subclass"):
        read_settings(save(tmp_path, {"x": np.zeros(2).view(Subclass)}))


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04Nr\xff\xff\xff\x7f.",  # the memo's two-billionth place
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00N.",  # a frame of 64 petabytes
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00N.",  # a terabyte of bytes
    ],
)
def test_lengths_that_the_file_does_not_hold_reserve_no_memory(tmp_path, pickled):
    path = write(tmp_path, pickled)
    tracemalloc.start()
    with pytest.raises(RecordingError, match="damaged"):
        read_settings(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_persistent_ids_are_refused(tmp_path):
    with pytest.raises(RecordingError, match="not read"):
        read_settings(write(tmp_path, b"\x80\x04Pos.system\n."))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"<html>not found</html>",
        b"\x93NUMPY\x01\x00\x10\x27" + 10_000 * b"(",
        b"\x93NUMPY\x01\x00\x04\x00{'''",
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "ops.npy"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"ops\.npy.*not read"):
        read_settings(path)


def test_arrays_that_hold_no_dict_are_refused(tmp_path):
    for content in (np.zeros(3), np.array([{"fs": 30.0}], dtype=object), "text"):
        with pytest.raises(RecordingError, match="one dict"):
            read_settings(save(tmp_path, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordingError, match=r"ops\.npy.*No such file"):
        read_settings(tmp_path / "ops.npy")


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 700), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_gives_settings_or_a_clear_error(tmp_path, place, byte, cut):
    content = bytearray(save(tmp_path, OPS).read_bytes())
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] = byte
    path = tmp_path / "ops.npy"
    path.write_bytes(content)
    try:
        found = read_settings(path)
    except RecordingError:
        return
    for value in found.values():
        as_number(value)
