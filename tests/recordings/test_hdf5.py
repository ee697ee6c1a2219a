import h5py
import numpy as np
import pytest

from poyo_ssl.recordings.hdf5 import open_hdf5, refuse_unsafe_contents
from poyo_ssl.recordings.recording import RecordingError

SECRET = b"the-secret-of-another-file"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.frombuffer(SECRET, dtype=np.uint8)
    return path


def _external_link(file, other, secret):
    file["a/link"] = h5py.ExternalLink(str(other), "/values")


def _external_storage(file, other, secret):
    file.create_group("a").create_dataset(
        "raw", shape=(len(SECRET),), dtype=np.uint8, external=str(secret)
    )


def _virtual_dataset(file, other, secret):
    layout = h5py.VirtualLayout(shape=(len(SECRET),), dtype=np.uint8)
    layout[:] = h5py.VirtualSource(str(other), "values", shape=(len(SECRET),))
    file.create_group("a").create_virtual_dataset("virtual", layout)


@pytest.mark.parametrize("point_outside", [_external_link, _external_storage, _virtual_dataset])
def test_a_file_that_points_outside_is_refused_before_anything_is_read(
    tmp_path, other, secret, point_outside
):
    path = tmp_path / "crafted.h5"
    with h5py.File(path, "w") as file:
        point_outside(file, other, secret)
    with h5py.File(path) as file:  # what would have leaked
        leaked = next(iter(file["a"].values()))[()]
        assert leaked.tobytes() == SECRET
    with (
        pytest.raises(RecordingError, match="takes data from other files: a/") as caught,
        open_hdf5(path),
    ):
        pytest.fail("the file was opened")
    assert SECRET.decode() not in str(caught.value)


def test_a_link_that_hides_behind_soft_and_hard_links_is_found(tmp_path, other):
    with h5py.File(tmp_path / "crafted.h5", "w") as file:
        inner = file.create_group("deep/er")
        inner["back"] = file["deep"]  # a cycle of hard links
        inner["out"] = h5py.ExternalLink(str(other), "/")
        file["soft"] = h5py.SoftLink("/deep/er/out/values")
        with pytest.raises(RecordingError, match="deep/er/out"):
            refuse_unsafe_contents(file)


def test_links_within_a_file_are_fine(tmp_path):
    path = tmp_path / "linked.h5"
    with h5py.File(path, "w") as file:
        file["a/values"] = np.arange(3)
        file["hard"] = file["a/values"]
        file["soft"] = h5py.SoftLink("/a/values")
        file["dangling"] = h5py.SoftLink("/nowhere")
    with open_hdf5(path) as file:
        assert file["soft"][()].tolist() == [0, 1, 2]


def test_a_missing_file_a_folder_and_other_formats_are_told_apart(tmp_path):
    page = tmp_path / "page.nwb"
    page.write_text("<html>404</html>")
    empty = tmp_path / "empty.nwb"
    empty.touch()
    for path, problem in [
        (tmp_path / "none.nwb", "there is no such file"),
        (tmp_path, "it is a folder"),
        (page, "is not an HDF5 file .*<html>"),
        (empty, "is not an HDF5 file .*is empty"),
    ]:
        with pytest.raises(RecordingError, match=problem), open_hdf5(path):
            pytest.fail("opened")


@pytest.mark.parametrize("kept", [9, 100, 0.5, 0.99])
def test_a_truncated_file_is_called_truncated(tmp_path, kept):
    path = tmp_path / "long.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.arange(10_000)
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with (
        pytest.raises(RecordingError, match="truncated, damaged or of an unknown form"),
        open_hdf5(path),
    ):
        pytest.fail("opened")


def test_damage_found_while_reading_is_reported_with_the_file(tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=np.arange(1000), chunks=(1000,), fletcher32=True)
        offset = file["values"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 10] ^= 0xFF
    path.write_bytes(content)
    with (
        pytest.raises(RecordingError, match=r"damaged\.h5' \(\d+ bytes\) cannot be read"),
        open_hdf5(path) as file,
    ):
        file["values"][()]


def test_a_dataset_that_declares_more_than_the_file_holds_is_refused(tmp_path):
    path = tmp_path / "inflated.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", shape=(2**34, 300), dtype=np.float32, chunks=(4096, 300))
    with pytest.raises(RecordingError, match="traces declares 19200 GiB"), open_hdf5(path):
        pytest.fail("opened")


def test_what_compresses_well_is_still_read(tmp_path):
    path = tmp_path / "zeros.h5"
    with h5py.File(path, "w") as file:
        zeros = np.zeros((2000, 2000), dtype=np.float32)
        file.create_dataset("values", data=zeros, compression="gzip", compression_opts=9)
    with open_hdf5(path) as file:
        assert not file["values"][()].any()
