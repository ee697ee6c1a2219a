import contextlib
import io
import resource

import h5py
import numpy as np
import pytest

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.hdf5 import open_hdf5, refuse_unsafe_contents

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


def test_running_out_of_file_handles_is_not_called_damage(tmp_path):
    path = tmp_path / "whole.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.arange(3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    handles = []
    try:
        with contextlib.suppress(OSError):
            handles.extend(path.open() for _ in range(101))
        with pytest.raises(RecordingError, match=r"no more files open.*ulimit -n"), open_hdf5(path):
            pytest.fail("opened")
    finally:
        for handle in handles:
            handle.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_dataset_where_a_group_is_expected_is_reported_with_the_file(tmp_path):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["processing"] = np.arange(3)
    with (
        pytest.raises(RecordingError, match=r"odd\.h5' .*'Dataset' .* unknown form"),
        open_hdf5(path) as file,
    ):
        file["processing"].items()


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


def test_a_soft_link_through_an_external_link_is_refused_with_it(tmp_path, other):
    path = tmp_path / "crafted.h5"
    with h5py.File(path, "w") as file:
        file["door"] = h5py.ExternalLink(str(other), "/")
        file["innocent"] = h5py.SoftLink("/door/values")
    with h5py.File(path) as file:
        assert file["innocent"][()].tobytes() == SECRET  # what would have leaked
    with pytest.raises(RecordingError, match="door"), open_hdf5(path):
        pytest.fail("opened")


def test_a_link_of_a_kind_that_only_a_program_knows_is_refused(tmp_path):
    path = tmp_path / "crafted.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        file["odd"] = h5py.ExternalLink("elsewhere.h5", "/values")
    content = path.read_bytes()
    link_message = b"\x01\x08@\x03odd"  # version 1, kind stored, kind 64: external; name of 3
    assert content.count(link_message) == 1
    path.write_bytes(content.replace(link_message, b"\x01\x08A\x03odd"))
    with h5py.File(path) as file:
        assert file.id.links.get_info(b"odd").type == 65
    with pytest.raises(RecordingError, match=r"odd \(link out of"), open_hdf5(path):
        pytest.fail("opened")


def test_what_looks_odd_but_stays_within_the_file_is_fine(tmp_path):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["values"] = np.arange(3)
        file["committed_type"] = np.dtype([("x", "<f4"), ("y", "<f4")])
        file["of_that_type"] = np.zeros(2, dtype=file["committed_type"])
        file["region"] = np.array([file["values"].regionref[:2]], dtype=h5py.regionref_dtype)
        file["deep/er/back_to_deep"] = file.require_group("deep")
        file["deep/root"] = file["/"]
    with path.open("r+b") as handle:
        handle.write(b"\x89PNG, a picture that is also HDF5")
    with open_hdf5(path) as file:
        assert file["deep/root/deep/er/back_to_deep/root/values"][()].tolist() == [0, 1, 2]
        assert file["region"].shape == (1,)


def test_a_missing_compression_filter_is_named_when_its_data_are_read(tmp_path):
    path = tmp_path / "compressed.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = np.arange(3)
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((4,))
        creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd's number
        space = h5py.h5s.create_simple((4,))
        traces = h5py.h5d.create(file.id, b"traces", h5py.h5t.NATIVE_FLOAT, space, creation)
        traces.write_direct_chunk((0,), b"\x00" * 16)
    with open_hdf5(path) as file:
        assert file["plain"][()].tolist() == [0, 1, 2]
    with (
        pytest.raises(RecordingError, match=r"HDF5 filter 32015 .*not installed.*hdf5plugin"),
        open_hdf5(path) as file,
    ):
        file["traces"][()]


class Unreliable(io.BytesIO):
    """A remote file whose server goes away."""

    is_gone = False

    def read(self, size=-1):
        if self.is_gone:
            raise ConnectionError("the server closed the connection")
        return super().read(size)


@pytest.fixture
def remote(tmp_path):
    path = tmp_path / "far.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=np.arange(10_000), chunks=(1000,))
    return Unreliable(path.read_bytes())


def test_a_file_object_is_read_under_the_name_it_is_given_and_stays_open(remote):
    with open_hdf5(remote, name="https://far.away/far.h5") as file:
        assert file.filename == "https://far.away/far.h5"
        np.testing.assert_array_equal(file["values"][()], np.arange(10_000))
    assert not remote.closed


def test_a_file_object_is_held_to_the_same_checks(other):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["a/link"] = h5py.ExternalLink(str(other), "/values")
    with pytest.raises(RecordingError, match=r"'far\.h5' takes data from other files: a/link"):
        open_hdf5(content, name="far.h5").__enter__()
    with pytest.raises(RecordingError, match=r"'far\.h5' is not an HDF5 file .*<html>"):
        open_hdf5(io.BytesIO(b"<html>"), name="far.h5").__enter__()


def test_a_server_that_goes_away_is_an_error_that_names_the_file(remote):
    with (
        pytest.raises(RecordingError, match=r"'far\.h5' cannot be read: .*try again"),
        open_hdf5(remote, name="far.h5") as file,
    ):
        _read_without_server(file, remote)


@pytest.mark.parametrize("kept", [100, 700, 5000])
def test_a_file_object_that_ends_early_is_an_error(remote, kept):
    cut = io.BytesIO(remote.getvalue()[:kept])
    with (
        pytest.raises(RecordingError, match=r"'far\.h5' cannot be read"),
        open_hdf5(cut, name="far.h5") as file,
    ):
        file["values"][()]


def _read_without_server(file, remote):
    remote.is_gone = True
    return file["values"][()]
