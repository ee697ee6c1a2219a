"""What encoders know about direction after pretraining without labels: a ridge probe of each.

    python benchmarks/objectives.py --data ../shared/data [--seeds 5]

Every objective is pretrained on the unlabelled training half of the real drifting-gratings session
(all units), frozen, and probed: ridge from its latents to the direction of the training trials,
scored on the other half, beside an encoder of the same seed that never learned and one pretrained
on labels. Writes benchmarks/results/objectives.json and .md. Takes half an hour on 2 cores.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed

import poyo_ssl as ps
from poyo_ssl.comparison.run_directory import describe_hardware
from poyo_ssl.metrics.intervals import paired_gain, seed_interval
from poyo_ssl.study.probe import probe_latents
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.tasks import DIRECTION

SESSION = "sub-527550471_ses-527745328-StimA_ophys.nwb"
TRAINING = TrainingConfig(max_steps=300, unit_dropout=0.3, jitter=0.0)
LARGE = TrainingConfig(max_steps=300, batch_size=128, unit_dropout=0.3, jitter=0.0)

OBJECTIVES = {
    "masked activity: units": {},
    "masked activity: random patches": {
        "masked_activity": ps.MaskedActivityConfig(pattern="random_patches")
    },
    "masked activity: the future": {"masked_activity": ps.MaskedActivityConfig(pattern="future")},
    "masked activity: units, first 3 modes left out": {
        "masked_activity": ps.MaskedActivityConfig(remove_modes=3)
    },
    "masked latents, stop-gradient": {"objective": "masked_latents"},
    "masked latents, EMA teacher": {
        "objective": "masked_latents",
        "masked_latents": ps.MaskedLatentsConfig(target="ema"),
    },
    "modes": {"objective": "modes", "embedding_modes": 20},
    "split units": {
        "objective": "split_units",
        "split_units": ps.SplitUnitsConfig(remove_modes=1),
        "training": LARGE,
    },
    "modes, then split units": {
        "objective": "split_units",
        "split_units": ps.SplitUnitsConfig(remove_modes=1),
        "embedding_modes": 20,
        "training": LARGE,
    },
    "labels of the training half": {"objective": "labels", "label_weight": 1.0},
}
"""Name in the table to options of PretrainingConfig."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    jobs = [
        delayed(probe)(options.data / SESSION, name, seed)
        for name in OBJECTIVES
        for seed in range(options.seeds)
    ]
    scores = pd.DataFrame(Parallel(n_jobs=options.jobs, verbose=5)(jobs))
    result = {
        "command": f"python benchmarks/objectives.py --data {options.data} --seeds {options.seeds}",
        "num_test": len(population_of(options.data / SESSION)[1]),
        "hardware": describe_hardware(),
        "scores": scores.to_dict("records"),
        "rows": summarize(scores),
    }
    results = Path(__file__).parent / "results"
    (results / "objectives.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "objectives.md").write_text(format_markdown(result))
    print(format_markdown(result))


def population_of(file: Path) -> tuple[ps.Population, object]:
    """All units of the session, and the windows that are scored."""
    [recording] = ps.load_recordings([file])
    splits = ps.SplitConfig(valid_fraction=0.0, test_fraction=0.5)
    divided = ps.divide([recording], [DIRECTION], splits)
    population = ps.Population(divided, {recording.recording_id: list(recording.unit_ids)})
    length = ps.EncoderConfig().window_timesteps(DIRECTION.window_length, recording.sampling_rate)
    return population, population.divided.windows(divided, DIRECTION, "test", length)


def probe(file: Path, name: str, seed: int) -> dict:
    torch.set_num_threads(1)
    population, _ = population_of(file)
    config = ps.PretrainingConfig(**{"training": TRAINING, **OBJECTIVES[name]})
    encoder = ps.pretrain(population, config, encoder=ps.EncoderConfig(), seed=seed)
    fit = encoder.fit
    found = probe_latents(encoder, population, DIRECTION, seed=seed)
    return {
        "objective": name,
        "seed": seed,
        "accuracy": found.encoder,
        "random": found.random_initialisation,
        "seconds": fit.seconds,
    }


def summarize(scores: pd.DataFrame) -> list[dict]:
    random = scores.drop_duplicates("seed")["random"]
    rows = [{"objective": "none: random initialisation", **interval_of(random), "seconds": 0.0}]
    for name, group in scores.groupby("objective", sort=False):
        gain = paired_gain(group["accuracy"].to_numpy(), group["random"].to_numpy())
        rows.append(
            {
                "objective": name,
                **interval_of(group["accuracy"]),
                "gain": gain.mean,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "p_value": gain.p_value,
                "seconds": float(group["seconds"].mean()),
            }
        )
    return rows


def interval_of(values: pd.Series) -> dict:
    interval = seed_interval(values.to_numpy())
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def format_markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`",
        "",
        "Ridge probe of frozen latents: accuracy of 8 directions (chance 0.125) on "
        f"{result['num_test']} test windows of the real drifting-gratings session; mean [95 % "
        "interval over seeds], and the paired gain over the same encoder before it learned.",
        "",
        "| pretrained by | accuracy | gain over random initialisation | p | seconds |",
        "|---" * 5 + "|",
    ]
    for row in result["rows"]:
        gain, p = "", ""
        if "gain" in row:
            gain = f"{row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]"
            p = f"{row['p_value']:.3g}"
        accuracy = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        cells = [row["objective"], accuracy, gain, p, f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
