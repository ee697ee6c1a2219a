"""A disk that is really full: the file is named, the old one stays, and no half file is left."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from poyo_ssl.model.checkpoints import save_checkpoint
from poyo_ssl.output_directory import OutputError
from poyo_ssl.whole_files import (
    partial_file,
    publish,
    write_arrays,
    write_csv,
    write_figure,
    write_json,
)

resource = pytest.importorskip("resource", reason="files are kept small by POSIX")
ROOM = 3000
"""Bytes that a file may have."""
VALUES = np.random.default_rng(0).normal(size=20_000)


@contextmanager
def little_room() -> Iterator[None]:
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def write_hdf5(path: Path) -> None:
    with partial_file(path) as partial:
        with h5py.File(partial, "x") as file:
            file["values"] = VALUES
        publish(partial, path)


def write_npy(path: Path) -> None:
    with partial_file(path) as partial:
        with partial.open("xb") as handle:
            np.save(handle, VALUES)
        publish(partial, path)


def write_png(path: Path) -> None:
    figure = Figure()
    figure.subplots().imshow(VALUES.reshape(100, 200))
    write_figure(path, figure)


def write_gif(path: Path) -> None:
    with partial_file(path) as partial:
        Image.fromarray(VALUES.reshape(100, 200).astype(np.uint8)).save(partial, "gif")
        publish(partial, path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "weights.safetensors": lambda p: save_checkpoint(p.parent, {"a": torch.tensor(VALUES)}, {}),
    "config.json": lambda p: save_checkpoint(
        p.parent, {"a": torch.zeros(1)}, {"a": VALUES.tolist()}
    ),
    "a.npz": lambda p: write_arrays(p, {"a": VALUES}),
    "a.csv": lambda p: write_csv(p, pd.DataFrame({"a": VALUES})),
    "a.json": lambda p: write_json(p, VALUES.tolist()),
    "a.h5": write_hdf5,
    "a.npy": write_npy,
    "a.png": write_png,
    "a.gif": write_gif,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_finds_no_room_is_named_and_the_old_one_stays(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"as it was")
    with little_room(), pytest.raises(OutputError) as caught:
        WRITERS[name](path)
    assert f"'{path}' cannot be written" in str(caught.value)
    assert "make room" in str(caught.value)
    assert path.read_bytes() == b"as it was"
    assert [found.name for found in tmp_path.iterdir()] == [name]
