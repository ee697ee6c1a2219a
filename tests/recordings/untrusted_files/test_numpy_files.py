"""numpy files are read as numpy reads them, or refused before room is made for them."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.numpy_files import open_array, open_npz, read_shape


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def lying(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """A header of that shape before sixteen bytes of data."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + bytes(16)


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_gives_back_what_was_saved(tmp_path, rng, save):
    arrays = {
        "traces": rng.normal(size=(30, 4)).astype(">f4"),
        "turned": np.asfortranarray(rng.normal(size=(3, 5))),
        "names": np.array(["a", "bc"]),
        "one": np.float64(30),
        "none": np.zeros((0, 3)),
        "a/b/c": np.arange(3),
    }
    save(tmp_path / "a.npz", **arrays)
    with open_npz(tmp_path / "a.npz") as found:
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def test_an_array_is_the_file_itself_in_memory(tmp_path, rng):
    array = rng.normal(size=(30, 4))
    np.save(tmp_path / "a.npy", array)
    found = open_array(tmp_path / "a.npy")
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, array)
    assert read_shape(tmp_path / "a.npy") == (30, 4)


def test_the_shape_of_objects_is_read_without_them(tmp_path):
    np.save(tmp_path / "stat.npy", np.array([{"med": 1}, {"med": 2}]), allow_pickle=True)
    assert read_shape(tmp_path / "stat.npy") == (2,)
    with pytest.raises(RecordingError, match=r"stat\.npy.*object"):
        open_array(tmp_path / "stat.npy")


LIES = [(2**40,), (2**31, 2**31), (2**62, 16), (-1,), (3,), (5,), (2**20, 0, 3)]


@pytest.mark.parametrize("shape", LIES)
def test_headers_that_lie_are_refused_before_room_is_made(tmp_path, shape):
    path = pack(tmp_path / "a.npz", {"x.npy": lying(shape)})
    tracemalloc.start()
    with pytest.raises(RecordingError, match=r"a\.npz"), open_npz(path) as arrays:
        arrays["x"]
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("shape", LIES)
def test_single_arrays_whose_header_lies_are_refused(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(lying(shape))
    with pytest.raises(RecordingError, match=r"a\.npy"):
        open_array(tmp_path / "a.npy")


def test_objects_records_and_dates_are_refused(tmp_path):
    for array in (
        np.array([{}]),
        np.zeros(2, dtype=[("a", "f4")]),
        np.zeros(2, dtype="M8[s]"),
        np.zeros(2, dtype=complex),
    ):
        path = pack(tmp_path / "a.npz", {"x.npy": npy(array)})
        with pytest.raises(RecordingError, match="not numbers"), open_npz(path):
            pass


def test_a_bomb_is_refused_by_its_size(tmp_path):
    path = pack(tmp_path / "a.npz", {"x.npy": lying((2**30,))})
    content = bytearray(path.read_bytes())
    declared = (2**32 - 2).to_bytes(4, "little")
    for marker, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the size in both headers
        at = content.index(marker) + offset
        content[at : at + 4] = declared
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"unpacks from .* to 4 GiB"), open_npz(path):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(10), b"\x93NUMPY\x01\x00"]
)
def test_other_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"a\.npz"), open_npz(path):
        pass
    with pytest.raises(RecordingError, match=r"a\.npz"):
        open_array(path)


def test_missing_files_are_named(tmp_path):
    for read in (open_array, read_shape):
        with pytest.raises(RecordingError, match=r"none\.npy.*No such file"):
            read(tmp_path / "none.npy")
    with pytest.raises(RecordingError, match=r"none\.npz.*No such file"):
        open_npz(tmp_path / "none.npz").__enter__()


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_gives_the_numbers_or_a_clear_error(tmp_path, place, byte, cut):
    """A zip file keeps a checksum of every member, so damaged numbers never get through."""
    array = np.arange(40, dtype=np.float32)
    path = pack(tmp_path / "a.npz", {"x.npy": npy(array), "y.npy": npy(array)})
    content = bytearray(path.read_bytes())
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] = byte
    path.write_bytes(content)
    try:
        with open_npz(path) as arrays:
            found = {name: arrays[name] for name in arrays}
    except RecordingError:
        return
    for values in found.values():
        np.testing.assert_array_equal(values, array)
