"""Tells what was shown in real sessions, in k-fold: closed forms, networks, and both together.

    python benchmarks/real_sessions.py ../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb \\
        ../shared/data/sub-527550471_ses-527676626-StimB_ophys.nwb --jobs 2
    python benchmarks/real_sessions.py DATA... --test_on FILE...

Every gratings task that a session can answer is asked with all its units and labels. Trials are
dealt to folds in runs that follow one another, with as many of each class in every fold; each fold
is told by decoders that are fitted on the others, for as many steps as the number of windows asks
for and without a validation part. With ``--test_on``, decoders are fitted on all of a session and
asked about the recordings in FILE that have its units, which nobody chose anything with.

Gains are over the closed form that is best in the mean over the folds, so over the luckiest of
them. Writes benchmarks/results/real_sessions.json and .md after every fit, and goes on where it was
stopped; ``--fresh`` begins anew. Takes about an hour on two idle cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import scipy.stats
import torch

import poyo_ssl as ps
from poyo_ssl.comparison.arms import ARMS
from poyo_ssl.comparison.run_directory import describe_hardware
from poyo_ssl.finetuning.setting import Setting

TASKS = ("direction", "temporal_frequency", "orientation", "spatial_frequency")
CLOSED_FORMS = (
    "ridge",
    "ridge, time bins",
    "ridge, semi-supervised",
    "logistic",
    "condition posterior",
)
NETWORKS = ("scratch", "scratch + chosen teacher")
NUM_FOLDS = 5
RESULTS = Path(__file__).parent / "results" / "real_sessions.json"
TESTED = RESULTS.with_stem("real_sessions_tested")


@dataclass(frozen=True)
class Fit:
    """One decoder of one fold."""

    file: Path
    task: str
    fold: int | None
    """The one that is told; None: all trials are learned from, and other recordings told."""
    arm: str

    @property
    def name(self) -> str:
        return f"{self.file.name}, {self.task}, fold {self.fold}, {self.arm}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--test_on", nargs="+", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    path = RESULTS if options.test_on is None else TESTED
    rows = [] if options.fresh or not path.exists() else json.loads(path.read_text())["scores"]
    done = {row["fit"] for row in rows}
    waiting = [fit for fit in plan(options) if fit.name not in done]
    command = f"python benchmarks/real_sessions.py {' '.join(f.name for f in options.data)}"
    if options.test_on is not None:
        command += f" --test_on {' '.join(f.name for f in options.test_on)}"
    results = joblib.Parallel(n_jobs=options.jobs, return_as="generator_unordered")(
        joblib.delayed(score)(fit, options.test_on) for fit in waiting
    )
    for row in results:
        print(row, flush=True)
        rows.append(row)
        result = {"command": command, "hardware": describe_hardware(), "scores": rows}
        path.write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text(format_markdown(result))
    print(path.with_suffix(".md").read_text())


def plan(options: argparse.Namespace) -> Iterator[Fit]:
    """The quick ones first."""
    asked = []
    for file in options.data:
        [recording] = ps.load_recordings(file)
        shown = [task for task in TASKS if ps.find_task(task).stimulus in recording.stimuli]
        asked += [(file, task) for task in shown]
    folds = range(NUM_FOLDS) if options.test_on is None else [None]
    for arms in (CLOSED_FORMS, NETWORKS):
        for fold in folds:
            for file, task in asked:
                yield from (Fit(file, task, fold, arm) for arm in arms)


def score(fit: Fit, test_on: list[Path] | None) -> dict:
    """Fits one decoder and asks it about what it has not seen."""
    torch.set_num_threads(1)
    [recording] = ps.load_recordings(fit.file)
    splits = ps.SplitConfig(train=(recording.recording_id,))
    if fit.fold is not None:
        splits = ps.SplitConfig(folds=NUM_FOLDS, fold=fit.fold, valid_fraction=0.0)
    divided = ps.divide([recording], fit.task, splits)
    setting = Setting(
        population=ps.Population(divided, {recording.recording_id: list(recording.unit_ids)}),
        task=divided.task(fit.task),
        encoder=ps.EncoderConfig(),
        config=ps.FinetuningConfig(),
        seed=fit.fold or 0,
        labels=1.0,
    )
    decoder = ARMS[fit.arm].fit(setting)
    scored = list(divided) if test_on is None else ps.load_recordings(test_on)
    scores = ps.evaluate(decoder, scored)
    return {
        "fit": fit.name,
        "session": recording.recording_id,
        "task": fit.task,
        "fold": fit.fold,
        "arm": fit.arm,
        "accuracy": round(float(scores.mean()["accuracy"]), 4),
        "steps": 0 if decoder.fit is None else int(decoder.fit.curves["step"].max()),
    }


def format_markdown(result: dict) -> str:
    """A table a task: means over the folds, and gains over the best closed form."""
    rows = pd.DataFrame(result["scores"])
    lines = [
        f"`{result['command']}`",
        "",
        f"{json.dumps(result['hardware'])}. Accuracy with all units and labels; networks are "
        f"{ps.FinetuningConfig().members} members, each fold with a seed of its own. Intervals "
        "(95 %, t) are over folds.",
        "",
        "| task | decoder | accuracy | folds | gain over the best closed form | steps |",
        "|---|---|---|---|---|---|",
    ]
    for task, of_task in rows.groupby("task", sort=False):
        table = of_task.pivot_table(index="fold", columns="arm", values="accuracy", dropna=False)
        if table.empty:  # one fit of everything has no fold
            table = of_task.pivot_table(index="session", columns="arm", values="accuracy")
        known = [arm for arm in CLOSED_FORMS if arm in table]
        best = table[known].mean().idxmax()
        for arm in [arm for arm in (*CLOSED_FORMS, *NETWORKS) if arm in table]:
            steps = of_task[of_task["arm"] == arm]["steps"].mean()
            gain = "" if arm == best else format_mean((table[arm] - table[best]).dropna(), "+")
            lines.append(
                f"| {task} | {arm} | {format_mean(table[arm].dropna())} | {table[arm].count()} | "
                f"{gain} | {steps:.0f} |"
            )
    return "\n".join(lines) + "\n"


def format_mean(values: pd.Series, sign: str = "") -> str:
    if len(values) < 3:
        return f"{values.mean():{sign}.3f}"
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(np.asarray(values))
    return f"{values.mean():{sign}.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
