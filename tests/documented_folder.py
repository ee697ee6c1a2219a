"""The folder that a reader of the documents is in: a checkout, and small data of all kinds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

import poyo_ssl as ps
from decoded_tables import write_run
from event_logs import BONSAI, PSYCHOPY, write_bpod
from film_runs import write_film_run
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.recordings.sources import Suite2pConfig
from poyo_ssl.stages import FinetuneStage, finetune_decoder
from published_recordings import recording_of
from shared_data import DATA, ROOT
from tiny_fits import ENCODER, few_steps

SIMULATOR = ps.SimulatorConfig(
    lines=("Cux2", "Sst"), recordings_per_line=1, units_per_recording=20, sampling_rate=10.0,
    grating_trials_per_condition=2, blank_sweeps=0, grating_blocks=1, movie_frames=30,
    movie_repeats=3, include_static_gratings=False, spontaneous_duration=5.0, gap_duration=5.0,
)  # fmt: skip


def build_folder(folder: Path) -> Path:
    """Everything that the documents name: sessions, folders of them, and what commands wrote."""
    folder.mkdir()
    for name in ("configs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    if DATA.is_dir():
        (folder.parent / "shared").symlink_to(DATA.parent)
    first, second = map(_with_steady_units, ps.simulate_observatory(SIMULATOR))
    stored = [ps.save_recording(recording, folder / "data") for recording in (first, second)]
    ps.prepare(folder / "data", folder / "prepared", source=ps.SourceConfig())
    for name in ("session.nwb", "later.nwb", "earlier.nwb"):
        shutil.copy(stored[0], folder / name)  # what a file holds counts, not its name
    _write_suite2p(folder / "mouse989")
    _write_arrays(folder / "session.npz")
    for name, rate in (("encoder", first.sampling_rate), ("static", 30.0)):
        encoder = Encoder(ps.EncoderConfig(), rate)
        encoder.add_units([str(unit_id) for unit_id in first.unit_ids])
        ps.save_encoder(encoder, folder / "runs" / name)
    shutil.copy(ROOT / "tests/data/calcium_poyo_plus/checkpoint.ckpt", folder / "epoch_414.ckpt")
    published = recording_of(
        np.random.default_rng(0).normal(size=(7200, 5)), "500000001", rate=30.0
    )
    ps.save_recording(published, folder / "brainsets").rename(folder / "500964514.h5")
    (folder / "runs/movie").mkdir()
    write_film_run(folder / "runs/movie")
    _write_decoded(first, folder)
    _write_logs(folder)
    _write_tracked(folder)
    small = FinetuneStage(encoder=ENCODER, finetuning=few_steps(2))
    finetune_decoder([folder / "session.nwb"], folder / "runs/decoder", small)
    return folder


def _with_steady_units(recording: ps.Recording) -> ps.Recording:
    """Half of the units become noise, which is predictable; the mouse runs, and sees no movie."""
    rng = np.random.default_rng(0)
    traces = recording.df_over_f.copy()
    traces[:, 10:] = rng.normal(size=(recording.num_timesteps, 10))
    running = pd.DataFrame(
        {"timestamp": recording.timestamps, "speed": rng.normal(size=recording.num_timesteps)}
    )
    gratings = {"drifting_gratings": recording.stimuli["drifting_gratings"]}
    return replace(recording, df_over_f=traces, running=running, stimuli=gratings, templates={})


def _write_suite2p(mouse: Path) -> None:
    """Twenty cells at 30 Hz and a log of 80 gratings, as docs/recordings.md draws the folder."""
    plane = mouse / "suite2p" / "plane0"
    plane.mkdir(parents=True)
    rng = np.random.default_rng(0)
    light = 100 + _activity(rng, 7500, 20).T
    np.save(plane / "F.npy", light)
    np.save(plane / "Fneu.npy", 0.1 * light)
    np.save(plane / "iscell.npy", np.ones((20, 2), dtype=np.float32))
    onsets = 3.0 + 3.0 * np.arange(80)
    log = {"onset_s": onsets, "offset_s": onsets + 2.0, "direction": np.arange(80) % 8 * 45.0}
    pd.DataFrame(log).to_csv(mouse / "gratings.csv", index=False)
    shown = {"onset_s": "start", "offset_s": "end", "direction": "orientation"}
    pd.DataFrame(log).rename(columns=shown).to_csv(mouse / "shown.csv", index=False)


def _write_decoded(recording: ps.Recording, folder: Path) -> None:
    """An NWB session and the suite2p folder, each with a run that decoded it."""
    day1 = ps.write_nwb(
        recording, folder / "day1.nwb", session_start_time=datetime(2026, 5, 4, 10, tzinfo=UTC)
    )
    source = ps.SourceConfig(suite2p=Suite2pConfig(sampling_rate=30.0))
    for name, path in (("day1", day1), ("989", folder / "mouse989")):
        write_run(folder / "runs" / name, ps.load_recordings(path, source)[0])


def _write_logs(folder: Path) -> None:
    """The log of pyControl about the gratings of the mouse, and short ones of other programs."""
    directions = np.arange(80) % 8 * 45
    states = {"pause": 1, **{f"degrees_{angle}": 2 + angle // 45 for angle in set(directions)}}
    numbers = ", ".join(f'"{name}": {number}' for name, number in states.items())
    lines = ["I Task name : gratings", f"S {{{numbers}}}", 'E {"photodiode": 20, "rsync": 21}']
    for onset, angle in zip(3000 + 3000 * np.arange(80), directions, strict=True):
        lines += [f"D {onset - 500} 21", f"D {onset} {2 + angle // 45}"]
        lines += [f"D {onset + 40} 20", f"D {onset + 2000} 1"]
    (folder / "mouse989" / "log.txt").write_text("\n".join(lines))
    (folder / "trials.csv").write_text(PSYCHOPY)
    (folder / "events.csv").write_text(BONSAI)
    write_bpod(folder / "bpod.mat")


def _write_tracked(folder: Path) -> None:
    """Two days of the mouse, and what ROICaT says of them: the same cells."""
    for day in ("monday", "tuesday"):
        shutil.copytree(folder / "mouse989" / "suite2p", folder / day / "suite2p")
    labels = {"labels_bySession": [list(range(20))] * 2}
    (folder / "m1.tracking.results_clusters.json").write_text(json.dumps(labels))


def _write_arrays(path: Path) -> None:
    """Twenty showings of a sequence of four segments."""
    rng = np.random.default_rng(0)
    starts = 2.0 + 2.0 * np.arange(80)
    table = {"start": starts, "end": starts + 2.0, "segment": np.arange(80) % 4.0}
    arrays = {f"stimuli/sequence/{name}": values for name, values in table.items()}
    arrays["stimuli/sequence/repeat"] = np.arange(80) // 4
    np.savez(path, df_over_f=_activity(rng, 1650, 12), sampling_rate=10.0, **arrays)


def _activity(rng: np.random.Generator, num_timesteps: int, num_units: int) -> np.ndarray:
    """Half of the units have rare, large transients, so they are not predictable."""
    traces = rng.normal(size=(num_timesteps, num_units))
    is_rare = rng.random(size=traces.shape) < 0.01
    traces[:, ::2] += 50 * is_rare[:, ::2]
    return traces.astype(np.float32)
