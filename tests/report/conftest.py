"""An invented run directory as a run of the package would leave it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.neurons.storage import save_neurons
from tiny_neurons import described_neurons

TASKS = [
    {"name": "direction", "title": "Drifting gratings, direction", "chance": 0.125,
     "kind": "labels", "split": "trial"},
    {"name": "temporal_frequency", "title": "Drifting gratings, temporal frequency",
     "chance": 0.2, "kind": "labels", "split": "trial"},
    {"name": "natural_movie_one", "title": "Natural movie one", "chance": None,
     "kind": "images", "split": "repeat"},
    {"name": "natural_movie_one", "title": "Natural movie one", "chance": None,
     "kind": "images", "split": "held_out_frames"},
]  # fmt: skip
RECORDING_IDS = ("511510650-StimA", "527745328-StimA")
SEEDS = (0, 1, 2)
LABEL_ARMS = {"chance": "reference", "ridge": "reference", "ridge (time bins)": "reference",
              "logistic": "reference", "scratch": "network", "pretrained": "network",
              "scratch + teacher": "network"}  # fmt: skip
MOVIE_ARMS = {"mean frame": "reference", "nearest frame": "reference",
              "ridge to pixels": "reference", "scratch": "network",
              "pretrained": "network"}  # fmt: skip
# what each arm scores, where: so that pretraining helps, is unsure, and hurts in turn
MEANS = {
    "direction": {"chance": 0.125, "ridge": 0.914, "ridge (time bins)": 0.902, "logistic": 0.887,
                  "scratch": 0.842, "pretrained": 0.898, "scratch + teacher": 0.881},
    "temporal_frequency": {"chance": 0.2, "ridge": 0.473, "ridge (time bins)": 0.455,
                           "logistic": 0.448, "scratch": 0.431, "pretrained": 0.436,
                           "scratch + teacher": 0.444},
    "repeat": {"mean frame": 0.312, "nearest frame": 0.571, "ridge to pixels": 0.544,
               "scratch": 0.498, "pretrained": 0.583},
    "held_out_frames": {"mean frame": 0.318, "nearest frame": 0.301, "ridge to pixels": 0.352,
                        "scratch": 0.371, "pretrained": 0.338},
}  # fmt: skip
GAIN_HALF_WIDTH = {"direction": 0.021, "temporal_frequency": 0.032, "repeat": 0.03,
                   "held_out_frames": 0.014}  # fmt: skip


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run whose recordings are named to break out of a page."""
    directory = tmp_path_factory.mktemp("hostile")
    names = ("<script>alert(1)</script>", "</script><img src=x onload=alert(2)>")
    rng = np.random.default_rng(7)
    write_run(directory, recording_ids=names, is_simulated=True, rng=rng)
    arms = ("ridge", "pretrained")
    described = [described_neurons(name, rng, arms, cre_line=f"{name}$_$") for name in names]
    save_neurons(described, directory / "neurons.npz")
    return directory


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory for tests that change nothing in it."""
    directory = tmp_path_factory.mktemp("saved") / "run"
    directory.mkdir()
    rng = np.random.default_rng(7)
    write_run(directory, recording_ids=RECORDING_IDS, is_simulated=False, rng=rng)
    return directory


@pytest.fixture
def run_directory(saved_run: Path, tmp_path: Path) -> Path:
    """A run directory of one's own."""
    return Path(shutil.copytree(saved_run, tmp_path / "run"))


def write_run(
    directory: Path, *, recording_ids: tuple[str, ...], is_simulated: bool, rng: np.random.Generator
) -> None:
    _write_json(directory / "run.json", _run(is_simulated))
    _write_json(directory / "recordings.json", [_recording(name) for name in recording_ids])
    _write_json(directory / "splits.json", _splits(recording_ids))
    _write_json(directory / "clock.json", [_clock(name) for name in recording_ids])
    units = _units(recording_ids, rng)
    units.to_csv(directory / "units.csv", index=False)
    _write_json(directory / "predictability.json", _predictability(units))
    _curves(rng).to_csv(directory / "curves.csv", index=False)
    _scores(recording_ids, rng).to_csv(directory / "scores.csv", index=False)
    _summary(len(recording_ids)).to_csv(directory / "summary.csv", index=False)
    _write_confusions(directory / "confusion", rng)
    _write_movies(directory / "movie", rng)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _clock(recording_id: str) -> dict[str, object]:
    """Of a recording whose gratings are answered 2.3 s late."""
    lags = np.arange(-15, 15.5, 0.5)
    return {
        "recording_id": recording_id,
        "stimulus": "drifting_gratings",
        "num_units": 40,
        "num_responding": 31,
        "best_lag": 2.3,
        "lag_range": [2.2, 2.5],
        "fit_name": "variance explained by the condition",
        "lags": lags.tolist(),
        "fit": [None, *np.exp(-np.square(lags[1:] - 2.3)).tolist()],
        "warning": f"The units of {recording_id} respond 2.3 s after the listed onsets.",
        "note": "",
    }


def _run(is_simulated: bool) -> dict[str, object]:
    return {
        "title": "Does pretraining on predictable units help?",
        "created": "2026-01-31T14:05:12+00:00",
        "command": "poyo-ssl run configs/allen.yaml --output results/allen",
        "is_simulated": is_simulated,
        "seconds": 4271.3,
        "versions": {"poyo-ssl": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "hardware": {"cpu": "Xeon 6", "num_cores": 16, "memory_gb": 128, "device": "cpu"},
        "config": {"predictability": {"skewness_max": 3.51}, "pretraining": {"epochs": 50}},
        "seeds": list(SEEDS),
        "tasks": TASKS,
        "citation": ["de Vries et al. 2020, Nature Neuroscience 23:138-151"],
    }


def _recording(recording_id: str) -> dict[str, object]:
    return {
        "recording_id": recording_id,
        "subject_id": "527550471",
        "container_id": "527550473",
        "session_type": "three_session_A",
        "source": "sub-527550471_ses-527745328-StimA_ophys.nwb",
        "num_units": 254,
        "num_predictable": 105,
        "num_unpredictable": 147,
        "num_excluded": 2,
        "num_timesteps": 43181,
        "sampling_rate": 30.07,
        "duration_s": 1439.2,
        "num_segments": 3,
        "cre_lines": {"Cux2-CreERT2": 254},
        "areas": {"VISp": 254},
        "stimuli": {
            "drifting_gratings": {"num_presentations": 478, "duration_s": 956.0},
            "natural_movie_one": {"num_presentations": 9000, "duration_s": 300.3},
        },
        "notes": ["Gaps between segments are nominal."],
    }


def _splits(recording_ids: tuple[str, ...]) -> list[dict[str, object]]:
    segments = [[10.0, 640.0], [700.0, 1300.0], [1360.0, 1800.0]]
    gratings = segments[:2]
    rows = []
    for name in recording_ids:
        rows.append(
            {
                "recording_id": name,
                "task": "direction",
                "segments": segments,
                "train": [[a, a + 0.7 * (b - a)] for a, b in gratings],
                "valid": [[a + 0.7 * (b - a), a + 0.8 * (b - a)] for a, b in gratings],
                "test": [[a + 0.8 * (b - a), b] for a, b in gratings],
                "guard": [],
            }
        )
        repeats = [1400.0 + 30 * repeat for repeat in range(10)]
        rows.append(
            {
                "recording_id": name,
                "task": "natural_movie_one",
                "segments": segments,
                "train": [[start, start + 18] for start in repeats],
                "valid": [[start + 20, start + 22] for start in repeats],
                "test": [[start + 24, start + 28] for start in repeats],
                "guard": [[start + 22, start + 24] for start in repeats],
            }
        )
    return rows


def _units(recording_ids: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    tables = []
    for name in recording_ids:
        skewness = np.exp(rng.normal(1.1, 0.6, 120))
        kurtosis = 2.2 + 1.4 * skewness**2 * np.exp(rng.normal(0, 0.2, 120))
        excluded = np.full(120, "", dtype=object)
        excluded[:2] = "constant ΔF/F"
        skewness[:2] = kurtosis[:2] = np.nan
        tables.append(
            pd.DataFrame(
                {
                    "recording_id": name,
                    "unit_id": [f"5176{number:05d}" for number in range(120)],
                    "cre_line": "Cux2-CreERT2",
                    "area": "VISp",
                    "imaging_depth_um": 275,
                    "num_timesteps": 30000,
                    "skewness": skewness,
                    "kurtosis": kurtosis,
                    "is_predictable": (skewness <= 3.51) & (kurtosis <= 22.62),
                    "excluded": excluded,
                }
            )
        )
    return pd.concat(tables)


def _predictability(units: pd.DataFrame) -> dict[str, object]:
    return {
        "skewness_max": 3.51,
        "kurtosis_max": 22.62,
        "source": "published",
        "kurtosis_definition": "Pearson's: a normal distribution scores 3",
        "num_predictable": int(units["is_predictable"].sum()),
        "num_unpredictable": int((~units["is_predictable"] & (units["excluded"] == "")).sum()),
        "num_excluded": int((units["excluded"] != "").sum()),
        "line_means": [
            {"cre_line": "Cux2-CreERT2", "skewness": 3.614, "kurtosis": 31.27, "num_units": 236}
        ],
    }


def _curves(rng: np.random.Generator) -> pd.DataFrame:
    steps = np.arange(0, 2000, 40)
    rows = []

    def add(stage: str, task: str, units: str, arm: str, seed: int, metric: str, curve) -> None:
        rows.append(
            pd.DataFrame(
                {
                    "stage": stage,
                    "fit": f"{stage}-{arm}-{seed}",
                    "task": task,
                    "units": units,
                    "arm": arm,
                    "label_fraction": 1.0 if stage == "finetune" else np.nan,
                    "seed": seed,
                    "step": steps,
                    "metric": metric,
                    "value": curve,
                }
            )
        )

    for seed in SEEDS:
        decay = np.exp(-steps / 500) + rng.normal(0, 0.02, len(steps)) + 0.03 * seed
        add("pretrain", "", "predictable", "pretrained", seed, "train/loss", 0.3 + 0.5 * decay)
        add("pretrain", "", "predictable", "pretrained", seed, "valid/loss", 0.35 + 0.5 * decay)
        add("pretrain", "", "predictable", "pretrained", seed, "target_variance", 1 - 0.2 * decay)
        for task, chance in (("direction", 0.125), ("temporal_frequency", 0.2)):
            for arm, speed in (("scratch", 700), ("pretrained", 350)):
                decay = np.exp(-steps / speed) + rng.normal(0, 0.02, len(steps)) + 0.02 * seed
                add("finetune", task, "unpredictable", arm, seed, "train/loss", 2 * decay)
                add("finetune", task, "unpredictable", arm, seed, "valid/loss", 0.2 + 2 * decay)
                accuracy = 0.9 - (0.9 - chance) * decay
                add("finetune", task, "unpredictable", arm, seed, "valid/accuracy", accuracy)
    return pd.concat(rows)


def _conditions() -> list[tuple[dict[str, object], str, str, str, float, str, float]]:
    """Every task, subset of units, arm, kind, label fraction and metric with its mean."""
    rows = []
    for task in TASKS:
        is_movie = task["kind"] == "images"
        means = MEANS[task["split"] if is_movie else task["name"]]
        arms = MOVIE_ARMS if is_movie else LABEL_ARMS
        metrics = ("ssim", "psnr") if is_movie else ("accuracy", "balanced_accuracy")
        for units, shift in (("unpredictable", 0.0), ("all", 0.03)):
            for fraction in (1.0,) if is_movie else (0.1, 1.0):
                for arm, kind in arms.items():
                    mean = means[arm] + (shift if arm != "chance" else 0)
                    if fraction < 1 and arm != "chance":
                        mean *= 0.8
                    rows.append((task, units, arm, kind, fraction, metrics[0], mean))
                    other = 12 + 10 * mean if is_movie else mean - 0.004
                    rows.append((task, units, arm, kind, fraction, metrics[1], other))
    return rows


def _scores(recording_ids: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for task, units, arm, kind, fraction, metric, mean in _conditions():
        for seed in SEEDS if kind == "network" else (0,):
            for at, recording_id in enumerate(recording_ids):
                value = mean + 0.03 * (at - 0.5) + rng.normal(0, 0.008)
                rows.append((recording_id, task["name"], task["split"], units, arm, kind, fraction,
                             seed, 350, 96, 41.0, metric, value))  # fmt: skip
    columns = ["recording_id", "task", "split", "units", "arm", "kind", "label_fraction", "seed",
               "num_train", "num_test", "seconds", "metric", "value"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _summary(num_recordings: int) -> pd.DataFrame:
    rows = []
    means = {
        (task["name"], task["split"], units, fraction, metric): mean
        for task, units, arm, _, fraction, metric, mean in _conditions()
        if arm == "scratch"
    }
    for task, units, arm, kind, fraction, metric, mean in _conditions():
        is_network = kind == "network"
        is_compared = is_network and arm != "scratch"
        is_movie = task["kind"] == "images"
        key = task["split"] if task["kind"] == "images" else task["name"]
        gain = mean - means[(task["name"], task["split"], units, fraction, metric)]
        half = GAIN_HALF_WIDTH[key]
        rows.append(
            {
                "task": task["name"], "split": task["split"], "units": units, "arm": arm,
                "kind": kind, "label_fraction": fraction, "metric": metric, "mean": mean,
                "seed_low": mean - 0.012 if is_network else np.nan,
                "seed_high": mean + 0.012 if is_network else np.nan,
                "trial_low": mean - 0.026 if arm != "chance" else np.nan,
                "trial_high": mean + 0.026 if arm != "chance" else np.nan,
                "low": mean - (0.031 if is_network else 0.026) if arm != "chance" else np.nan,
                "high": mean + (0.031 if is_network else 0.026) if arm != "chance" else np.nan,
                "chance_p_value": np.nan if is_movie else 1.0 if arm == "chance" else 0.0005,
                "num_right": np.nan if is_movie else 192 * mean,
                "fewest_of_a_class": np.nan if is_movie else 20,
                "num_seeds": len(SEEDS) if is_network else 1,
                "num_recordings": num_recordings, "num_test": 192,
                "gain_over_scratch": gain if is_compared else np.nan,
                "gain_low": gain - half if is_compared else np.nan,
                "gain_high": gain + half if is_compared else np.nan,
                "p_value": (0.71 if abs(gain) < half else 0.0042) if is_compared else np.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _write_confusions(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    for task, classes in (("direction", [f"{45 * step}°" for step in range(8)]),
                          ("temporal_frequency", ["1", "2", "4", "8", "15"])):  # fmt: skip
        for arm in ("ridge", "logistic", "pretrained", "scratch"):
            counts = rng.poisson(1.0, (len(classes), len(classes))) + 20 * np.eye(len(classes))
            table = pd.DataFrame(counts.astype(int), index=classes, columns=classes)
            table.to_csv(folder / f"{task}__unpredictable__{arm}.csv")


def _write_movies(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    y, x = np.mgrid[0:32, 0:48]
    phase = np.arange(8)[:, None, None]
    true = 127 + 80 * np.sin(x / 6 + phase) * np.cos(y / (5 + 0.5 * phase))
    for split, names in (("repeat", MOVIE_ARMS), ("held_out_frames", ("scratch", "pretrained"))):
        for arm in names:
            noise = {"mean frame": 60, "pretrained": 15}.get(arm, 30)
            predicted = 0.7 * true + 38 + rng.normal(0, noise, true.shape)
            np.savez(
                folder / f"natural_movie_one__{split}__unpredictable__{arm}.npz",
                movie_frame=np.arange(8) * 100 + 40,
                true=np.clip(true, 0, 255).astype(np.uint8),
                predicted=np.clip(predicted, 0, 255).astype(np.uint8),
                ssim=np.linspace(0.41, 0.55, 8),
            )
