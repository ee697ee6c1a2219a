"""Files of every kind that is read, and ways to damage them; each is read in a child process."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

import nwb_files
from film_runs import write_film_run
from poyo_ssl.cli import main
from poyo_ssl.comparison.merge import merge
from poyo_ssl.comparison.run import run
from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.evaluation.saved_runs import evaluate_run
from poyo_ssl.file_names import fit_folder
from poyo_ssl.model.checkpoints import load_encoder, save_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.recordings.loading import load_recording
from poyo_ssl.recordings.manifest import read_manifest
from poyo_ssl.recordings.preparation import prepare
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig, StimulusTable, Suite2pConfig
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.report.page import write_report
from poyo_ssl.training.resuming import read_checkpoint
from tiny_fits import ENCODER
from tiny_runs import tiny_observatory, tiny_run_config

TIME_LIMIT = 60
"""Seconds of computing after which a reading counts as an endless loop."""
LONGEST_WAIT = 3600
"""Seconds after which a reading counts as one that waits for ever."""
TRIALS = SourceConfig(
    stimuli={"drifting_gratings": StimulusTable(table="trials.csv", start="start", end="end")}
)


class Edit(NamedTuple):
    """One change of one file."""

    file: int
    """Which of the files, counted round."""
    way: int
    """How it is changed, counted round the ways that its form allows."""
    place: int
    """Where, counted round."""
    value: int
    """What is put there, counted round."""


class Target(NamedTuple):
    """Something that is read."""

    name: str
    make: Callable[[Path], object]
    """Writes whole files into an empty folder."""
    read: Callable[[Path], object]
    """Reads them from the folder."""
    suffixes: tuple[str, ...] = ()
    """Files that are damaged; none: all."""


# What is put in the place of bytes, text and arrays

_BYTES = (
    b"\0", b"\xff" * 8, b"\0" * 64, b"\x7f\xff\xff\xff", b"-1", b"1e999", b"nan", b"\n", b",", b'"',
    b"'", b":", b"{", b"]", b"\xc3\x28", b"99999999999999999999", b"null", b"true", b"~", b"!!",
    b"\xe2\x80\xae", b"../..",
)  # fmt: skip
_ARRAYS: tuple[Any, ...] = (
    np.float64(np.nan), np.float64(-1), np.float64(np.inf), np.empty(0), np.empty((0, 3)),
    np.zeros(1), np.zeros((2, 3)), np.zeros((3, 2, 2)), np.full(300, np.nan),
    np.full((300, 4), np.inf), np.arange(300)[::-1], np.int64(2**62), np.array([2**62] * 4),
    np.array([-1] * 300), np.zeros(3, dtype="c16"), np.zeros(4, dtype="?"), np.zeros(4, dtype="f2"),
    np.array([b"a", b"\xff"]), np.bytes_(b""), np.array([b"nan"] * 3), np.zeros(300, dtype="u1"),
    np.array([1e300] * 3), np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e300, float("nan"), 2**62, "", "a", "../..", "%2e", [], [[]], {}, [None],
    ["a", "a"], {"a": 1}, [1, [2, "b"]],
)  # fmt: skip


def make_all(names: Iterable[str], new_folder: Callable[[], Path]) -> dict[str, Path]:
    """A folder of undamaged files for every target; those that are made alike share one."""
    made: dict[Callable[[Path], object], Path] = {}
    for name in names:
        make = TARGETS[name].make
        if make not in made:
            made[make] = new_folder()
            make(made[make])
    return {name: made[TARGETS[name].make] for name in names}


def damage(folder: Path, edits: Sequence[Edit], suffixes: tuple[str, ...] = ()) -> None:
    """Changes files of a folder in place."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and (not suffixes or path.name.endswith(suffixes))
    )
    for edit in edits:
        path = files[edit.file % len(files)]
        ways: list[Callable[[Path, int, int], None]] = [
            _overwrite, _insert, _remove, _cut, _repeat, _flip
        ]  # fmt: skip
        if path.suffix in (".nwb", ".h5", ".hdf5", ".mat"):
            ways += [_replace_dataset] * 6 + [_change_attribute] * 2
        elif path.suffix == ".npz":
            ways += [_replace_array] * 6
        elif path.suffix == ".npy":
            ways += [_replace_npy] * 2
        elif path.suffix == ".json":
            ways += [_replace_value] * 12
        elif path.suffix == ".safetensors":
            ways += [_replace_tensor] * 12
        # a file that an earlier edit spoiled takes no edit of its form
        with contextlib.suppress(Exception):
            ways[edit.way % len(ways)](path, edit.place, edit.value)


def _overwrite(path: Path, place: int, value: int) -> None:
    content = path.read_bytes()
    put = _BYTES[value % len(_BYTES)]
    place %= len(content) + 1
    path.write_bytes(content[:place] + put + content[place + len(put) :])


def _insert(path: Path, place: int, value: int) -> None:
    content = path.read_bytes()
    place %= len(content) + 1
    path.write_bytes(content[:place] + _BYTES[value % len(_BYTES)] + content[place:])


def _remove(path: Path, place: int, value: int) -> None:
    content = path.read_bytes()
    place %= len(content) + 1
    path.write_bytes(content[:place] + content[place + 1 + value % 64 :])


def _cut(path: Path, place: int, _: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: place % (len(content) + 1)])


def _repeat(path: Path, place: int, value: int) -> None:
    content = path.read_bytes()
    place %= len(content) + 1
    path.write_bytes(content[:place] + content[place : place + 1 + value % 256] + content[place:])


def _flip(path: Path, place: int, value: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << value % 8
    path.write_bytes(content)


def _replace_dataset(path: Path, place: int, value: int) -> None:
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = names[place % len(names)]
        kept = dict(file[name].attrs)
        del file[name]
        odd = value % (len(_ARRAYS) + 4)
        if odd < len(_ARRAYS):
            file[name] = _ARRAYS[odd]
        elif odd == len(_ARRAYS):
            file[name] = h5py.Empty("f8")
        elif odd == len(_ARRAYS) + 1:
            file.create_group(name)
        elif odd == len(_ARRAYS) + 2:
            file[name] = np.array([file.ref] * 4, dtype=h5py.ref_dtype)
        if name in file:
            for key, attribute in kept.items():
                file[name].attrs[key] = attribute


def _change_attribute(path: Path, place: int, value: int) -> None:
    with h5py.File(path, "r+") as file:
        holders: list[str] = ["/"]
        file.visit(holders.append)
        attributes = [(name, key) for name in holders for key in file[name].attrs]
        name, key = attributes[place % len(attributes)]
        del file[name].attrs[key]
        odd = value % (len(_ARRAYS) + 1)
        if odd < len(_ARRAYS):
            file[name].attrs[key] = _ARRAYS[odd]


def _replace_array(path: Path, place: int, value: int) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    name = list(arrays)[place % len(arrays)]
    arrays[name] = _ARRAYS[value % len(_ARRAYS)]
    if value % 7 == 0:
        del arrays[name]
    np.savez(path, **arrays)


def _replace_npy(path: Path, _: int, value: int) -> None:
    np.save(path, _ARRAYS[value % len(_ARRAYS)])


def _replace_value(path: Path, place: int, value: int) -> None:
    """Puts something odd in the place of one value, or leaves it out."""
    whole = json.loads(path.read_text())
    places = list(_places(whole))
    holder, key = places[place % len(places)]
    odd = value % (len(_VALUES) + 1)
    if odd < len(_VALUES):
        holder[key] = _VALUES[odd]
    else:
        del holder[key]
    path.write_text(json.dumps(whole))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object in JSON, with every position in it."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _replace_tensor(path: Path, place: int, value: int) -> None:
    tensors = load_file(path)
    name = list(tensors)[place % len(tensors)]
    odd = _ARRAYS[value % len(_ARRAYS)]
    if value % 7 == 0:
        del tensors[name]
    elif value % 7 == 1:
        tensors[name] = torch.full_like(tensors[name], float("nan"))
    else:
        tensors[name] = torch.tensor(odd)
    save_file(tensors, path)


# What is read


def _make_npz(folder: Path) -> None:
    start = 3.0 * np.arange(9)
    np.savez(
        folder / "a.npz",
        df_over_f=nwb_files.traces(),
        timestamps=np.arange(300) / 10,
        unit_ids=np.array(["a", "b", "c", "d"]),
        subject_id="mouse",
        **{
            "units/cre_line": np.array(["Sst"] * 4),
            "stimuli/drifting_gratings/start": start,
            "stimuli/drifting_gratings/end": start + 2,
            "stimuli/drifting_gratings/orientation": np.resize([0.0, 45.0, np.nan], 9),
            "stimuli/drifting_gratings/contrast": np.resize([0.0, 0.8], 9),
            "stimuli/natural_scenes/start": start,
            "stimuli/natural_scenes/end": start + 2,
            "stimuli/natural_scenes/image": np.arange(-1, 8),
            "templates/natural_scenes": np.zeros((8, 4, 6), np.uint8),
            "series/lick/timestamps": np.arange(5.0),
            "series/lick/values": np.arange(5.0),
        },
    )


def _make_table(folder: Path) -> None:
    np.savez(folder / "a.npz", df_over_f=nwb_files.traces(), sampling_rate=10.0)
    start = 3.0 * np.arange(9)
    pd.DataFrame(
        {"start": start, "end": start + 2, "orientation": 45.0, "note": 'a "b"', "image": 3}
    ).to_csv(folder / "trials.csv", index=False)


def _make_suite2p(folder: Path) -> None:
    level = 100.0 * np.arange(1, 5)[:, None]
    np.save(folder / "F.npy", (level + nwb_files.traces().T).astype(np.float32))
    np.save(folder / "Fneu.npy", nwb_files.traces().T)
    np.save(folder / "iscell.npy", np.ones((4, 2)))
    np.save(folder / "stat.npy", np.array([{"med": [1, 2]}] * 4), allow_pickle=True)
    ops = np.empty((), dtype=object)
    ops[()] = {"fs": np.float64(10), "meanImg": np.zeros((3, 3)), "filelist": ["a"], "x": b"\xff"}
    with (folder / "ops.npy").open("wb") as handle:
        np.lib.format.write_array_header_1_0(
            handle, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        handle.write(pickle.dumps(ops, protocol=2))


def _make_nwb(folder: Path) -> None:
    session = nwb_files.new_session()
    nwb_files.add_traces(session, nwb_files.traces())
    nwb_files.add_gratings(session)
    nwb_files.add_behavior(session)
    nwb_files.add_scenes(session, np.arange(4), 11.0 + np.arange(4), np.zeros((4, 3, 5), np.uint8))
    path = nwb_files.write(session, folder / "a.nwb")
    with h5py.File(path, "r+") as file:
        table = file["processing/ophys/ImageSegmentation/PlaneSegmentation"]
        table["Accepted"], table["iscell"] = [1, 1, 1, 0], [[1, 0.5]] * 4


def _make_nwb1(folder: Path) -> None:
    path = nwb_files.write_nwb1(folder / "a.nwb", nwb_files.traces())
    data = np.array([[2.0, 45.0, 0.0], [np.nan, np.nan, 1.0], [4.0, 90.0, 0.0]])
    nwb_files.add_nwb1_stimulus(path, "drifting_gratings", data, [(9, 20), (30, 40), (50, 60)])
    nwb_files.add_nwb1_behavior(path)


def _make_stored(folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    _make_nwb(source)
    save_recording(load_recording(source / "a.nwb"), folder / "stored")
    (source / "a.nwb").unlink()


def _make_caiman(folder: Path) -> None:
    with h5py.File(folder / "a.hdf5", "w") as file:
        file["estimates/F_dff"] = nwb_files.traces().T
        file["estimates/idx_components"] = [0, 2]
        file["params/data/fr"] = 10.0


def _make_manifest(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    _make_npz(data)
    prepare(data, folder / "prepared", source=SourceConfig())


def _make_encoder(folder: Path) -> None:
    encoder = Encoder(ENCODER, 10.0)
    encoder.add_units(["a", "b"])
    save_encoder(encoder, folder / "encoder")


def _make_checkpoint(folder: Path) -> None:
    torch.save(
        {"state_dict": {"a": torch.zeros(3)}, "global_step": 3, "fingerprint": {"seed": 0}},
        folder / "step-3.ckpt",
    )


def _make_run(folder: Path) -> None:
    """A run, and a recording of its cells."""
    recordings = tiny_observatory()
    save_recording(recordings[0], folder / "data")
    config = tiny_run_config(num_seeds=1, arms=("pretrained",))
    run(recordings, folder / "run", config).unlink()


def _load_decoders(folder: Path) -> None:
    for arm in ("pretrained", "ridge"):
        name = fit_folder("direction", "all", arm, "100%", 0)
        decoder = FittedDecoder.from_pretrained(folder / "run" / name)
        recording = load_recording(next((folder / "data").glob("*.h5")))
        with contextlib.suppress(RecordingError):
            decoder.predict(recording, np.arange(3))


def _evaluate(folder: Path) -> None:
    evaluate_run(folder / "run", list((folder / "data").glob("*.h5")), folder / "scores.json")


def _make_config(folder: Path) -> None:
    _make_table(folder)
    (folder / "source.yaml").write_text(
        "stimuli:\n  drifting_gratings:\n    table: trials.csv\n    columns: {orientation: note}\n"
        "    start: start\n    end: end\nfluorescence:\n  baseline_window: 30.0\nnwb:\n"
        "  series: null\n  only_cells: true\nsessions_apart: false\n"
    )


def _inspect(folder: Path) -> None:
    """The command refuses with a message and a status; nothing else may come out of it."""
    try:
        main(["inspect", str(folder / "a.npz"), "--source", str(folder / "source.yaml")])
    except SystemExit as end:
        if end.code not in (0, 2):
            raise


_SUITE2P = SourceConfig(suite2p=Suite2pConfig())
_RESULTS = (".json", ".csv", ".npz")
TARGETS = {
    target.name: target
    for target in (
        Target("NWB 2", _make_nwb, lambda f: load_recording(f / "a.nwb")),
        Target("NWB 1", _make_nwb1, lambda f: load_recording(f / "a.nwb")),
        Target(
            "stored",
            _make_stored,
            lambda f: load_recording(next((f / "stored").glob("*.h5"))),
        ),
        Target("CaImAn", _make_caiman, lambda f: load_recording(f / "a.hdf5")),
        Target("arrays", _make_npz, lambda f: load_recording(f / "a.npz")),
        Target("table", _make_table, lambda f: load_recording(f / "a.npz", TRIALS), (".csv",)),
        Target("suite2p", _make_suite2p, lambda f: load_recording(f, _SUITE2P)),
        Target("settings", _make_suite2p, lambda f: load_recording(f, _SUITE2P), ("ops.npy",)),
        Target(
            "manifest", _make_manifest, lambda f: read_manifest(f / "prepared"), ("manifest.csv",)
        ),
        Target("encoder", _make_encoder, lambda f: load_encoder(f / "encoder")),
        Target("checkpoint", _make_checkpoint, lambda f: read_checkpoint(f / "step-3.ckpt")),
        Target("decoders", _make_run, _load_decoders, ("config.json", ".safetensors")),
        Target("evaluated run", _make_run, _evaluate, (".json", ".safetensors")),
        Target("merged run", _make_run, lambda f: merge([f / "run"], f / "merged"), _RESULTS),
        Target("reported run", _make_run, lambda f: write_report(f / "run"), _RESULTS),
        Target("reported films", write_film_run, write_report, _RESULTS),
        Target("config", _make_config, _inspect, (".yaml",)),
    )
}


def outcome_of(target: Target, folder: Path) -> str:
    """What comes of reading a folder in a child process: ``read``, ``refused``, or what is wrong.

    An error is right if it is one of ours, or of the system about a file, and says something.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        logging.disable()
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT)
        signal.alarm(LONGEST_WAIT)
        os.write(writing, _read(target, folder).encode()[:2000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return said


def _read(target: Target, folder: Path) -> str:
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            target.read(folder)
    except (ValueError, OSError) as error:
        is_ours = type(error).__module__.startswith("poyo_ssl")
        return "refused" if is_ours and str(error) else f"{type(error).__name__}: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "read"
