"""Runs the experiments of the README and the comparisons, and keeps their summaries.

    python benchmarks/decoding.py --data ../shared/data [EXPERIMENT ...]

Each experiment is one `poyo-ssl run` with a config of configs/, preceded by `poyo-ssl simulate`
where its recordings are simulated. Its results go to runs/NAME, its summary and facts to
benchmarks/results/NAME.json, every score to NAME.csv.gz, and Markdown tables of the summary to
NAME.md. What was begun resumes where it stopped. If none is named, the three of the README are run.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from result_files import RESULTS, as_rows, save_json, save_rows

ROOT = Path(__file__).resolve().parent.parent
"""All paths are relative to it, so that the commands kept with the results run anywhere."""
GRATINGS = "sub-527550471_ses-527745328-StimA_ophys.nwb"
STATIC_GRATINGS = "sub-527550471_ses-527676626-StimB_ophys.nwb"
OF_README = ("real_gratings", "real_static_gratings", "simulated_movie")


@dataclass(frozen=True)
class Observatory:
    """Recordings to simulate: a config of configs/ and a seed."""

    config: str
    seed: int = 0


@dataclass(frozen=True)
class Experiment:
    """One run: its config, what it decodes and what it pretrains on, if that is something else."""

    config: str
    recordings: str | Observatory
    earlier: str | Observatory | None = None


EXPERIMENTS = {
    "real_gratings": Experiment("real_gratings", GRATINGS),
    "real_static_gratings": Experiment("real_static_gratings", STATIC_GRATINGS),
    "simulated_movie": Experiment("simulated_movie", Observatory("simulated_observatory")),
    "real_within_session": Experiment("real_within_session", GRATINGS),
    "across_days": Experiment("across_days", GRATINGS, STATIC_GRATINGS),
    "across_days_reversed": Experiment("across_days_reversed", STATIC_GRATINGS, GRATINGS),
    **{
        f"simulated_transfer_{seed}": Experiment(
            "simulated_transfer",
            Observatory("observatory_finetune", seed),
            Observatory("observatory_pretrain", seed),
        )
        for seed in (0, 1)
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        help="folder with the two Allen sessions",
    )
    parser.add_argument(
        "experiments",
        nargs="*",
        default=OF_README,
        metavar="EXPERIMENT",
        help=f"among {', '.join(EXPERIMENTS)}",
    )
    options = parser.parse_args()
    unknown = set(options.experiments) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(EXPERIMENTS)}")
    os.chdir(ROOT)
    for name in options.experiments:
        run(name, EXPERIMENTS[name], options.data)


def run(name: str, experiment: Experiment, data: Path) -> None:
    directory = Path("runs") / name
    arguments = ["run", find(experiment.recordings, data)]
    if experiment.earlier is not None:
        arguments += ["--pretrain_on", find(experiment.earlier, data)]
    arguments += ["--config", f"configs/{experiment.config}.yaml", "--output", str(directory)]
    poyo_ssl(*arguments)
    keep(name, directory)


def find(source: str | Observatory, data: Path) -> str:
    """Path of a session, or of an observatory, which is simulated if it is not there."""
    if isinstance(source, str):
        return str(data / source)
    folder = Path("runs") / f"{source.config}_{source.seed}"
    if not (folder / "complete").exists():
        config = f"configs/{source.config}.yaml"
        poyo_ssl("simulate", "--config", config, f"--seed={source.seed}", "--output", str(folder))
        (folder / "complete").touch()
    return str(folder)


def poyo_ssl(*arguments: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name("poyo-ssl")), *arguments], check=True)


def keep(name: str, directory: Path) -> None:
    facts = json.loads((directory / "run.json").read_text())
    kept = {
        key: facts[key]
        for key in (
            "created",
            "command",
            "is_simulated",
            "seconds",
            "versions",
            "hardware",
            "config",
            "seeds",
        )
    }
    for table in ("pretrainings", "summary"):
        kept[table] = as_rows(pd.read_csv(directory / f"{table}.csv"))
    save_json(name, kept)
    save_rows(name, pd.read_csv(directory / "scores.csv"))
    (RESULTS / f"{name}.md").write_text(markdown(kept))


def markdown(kept: dict) -> str:
    """How it was made, the main metric of every arm at a glance, and its gains and times."""
    rows = pd.DataFrame(kept["summary"])
    rows = rows[rows["metric"].isin(["accuracy", "within_1s", "ssim"])]
    hardware = kept["hardware"]
    lines = [
        f"`{kept['command']}`",
        "",
        f"{len(kept['seeds'])} seeds, {kept['seconds'] / 60:.1f} min on {hardware['cpu']} "
        f"({hardware['num_cores']} cores, {hardware['device']})."
        + (" Simulated data." if kept["is_simulated"] else ""),
        *pretraining_lines(pd.DataFrame(kept["pretrainings"])),
    ]
    for task, here in rows.groupby("task", sort=False):
        lines += ["", f"## {task}", "", *score_lines(here), "", *gain_lines(here)]
    return "\n".join(lines) + "\n"


def pretraining_lines(pretrainings: pd.DataFrame) -> list[str]:
    """What every encoder was pretrained on; nothing where none was."""
    if pretrainings.empty:
        return []
    names = ["arm", "units", "objective", "num_recordings", "num_units"]
    rows = pretrainings.drop_duplicates("arm")[names].to_numpy()
    return ["", *table(["encoder", "units", "objective", "recordings", "units of seed 0"], rows)]


def score_lines(rows: pd.DataFrame) -> list[str]:
    """Scores of one task; columns are units and labels."""
    columns = list(rows[["units", "labels"]].drop_duplicates().itertuples(index=False, name=None))
    by_cell = rows.set_index(["arm", "units", "labels"])
    cells = [
        [arm, *(score(by_cell.loc[(arm, *column)]) for column in columns)]
        for arm in rows["arm"].unique()
    ]
    return [
        f"Mean [95 % interval]; {rows['metric'].iloc[0]} on "
        f"{int(rows['num_test'].max())} test windows.",
        "",
        *table(["decoder", *(f"{units}, labels {labels}" for units, labels in columns)], cells),
    ]


def gain_lines(rows: pd.DataFrame) -> list[str]:
    """Gains and times of every network, a line for each number of labels."""
    baseline = rows["baseline"].iloc[0]
    gains = {"scratch": ("gain_over_scratch", "gain_low", "gain_high", "p_value")}
    if baseline != "scratch":
        names = ("gain_low", "gain_high", "p_value")
        gains[baseline] = ("gain_over_baseline", *(f"baseline_{name}" for name in names))
    names = ["decoder", "units", "labels"]
    for other in gains:
        names += [f"gain over {other} [95 %]", "p"]
    names += ["pretraining, s", "fitting, s"]
    cells = []
    for _, row in rows[rows["kind"] == "network"].iterrows():
        line = [row["arm"], row["units"], row["labels"]]
        for gain, low, high, p_value in gains.values():
            line += [interval(row[gain], row[low], row[high], "+.3f"), number(row[p_value], ".2g")]
        line += [number(row["pretraining_seconds"], ".0f"), number(row["seconds"], ".0f")]
        cells.append(line)
    return [
        "Gains are paired by seed and test window. Seconds are means over seeds and those of one "
        "of the fits that ran at a time; an encoder is pretrained once for all lines of an arm.",
        "",
        *table(names, cells),
    ]


def score(row: pd.Series) -> str:
    return interval(row["mean"], row["low"], row["high"], ".3f")


def interval(mean: float, low: float, high: float, form: str) -> str:
    if pd.isna(low):
        return number(mean, form)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def number(value: float, form: str) -> str:
    return "" if pd.isna(value) else f"{value:{form}}"


def table(names: list[str], rows) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


if __name__ == "__main__":
    main()
