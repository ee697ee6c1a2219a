"""Runs the experiments of the README and keeps their summaries.

    python benchmarks/decoding.py --data ../shared/data [EXPERIMENT ...]

Experiments: real_gratings, real_static_gratings, simulated_movie; all if none is named. Each is
one `poyo-ssl run` with a config of configs/. Its results go to runs/NAME, its summary, scores and
facts to benchmarks/results/NAME.json, and a Markdown table of the summary to NAME.md.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
"""All paths are relative to it, so that the commands kept with the results run anywhere."""
SESSIONS = {
    "real_gratings": "sub-527550471_ses-527745328-StimA_ophys.nwb",
    "real_static_gratings": "sub-527550471_ses-527676626-StimB_ophys.nwb",
}
OBSERVATORY = Path("runs/observatory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        help="folder with the two Allen sessions",
    )
    names = [*SESSIONS, "simulated_movie"]
    parser.add_argument("experiments", nargs="*", default=names, help=f"among {', '.join(names)}")
    options = parser.parse_args()
    os.chdir(ROOT)
    for name in options.experiments:
        directory = Path("runs") / name
        poyo_ssl(
            "run",
            str(source(name, options.data)),
            "--config",
            f"configs/{name}.yaml",
            "--output",
            str(directory),
        )
        keep(name, directory)


def source(name: str, data: Path) -> Path:
    if name in SESSIONS:
        return data / SESSIONS[name]
    if not OBSERVATORY.exists():
        poyo_ssl(
            "simulate",
            "--config",
            "configs/simulated_observatory.yaml",
            "--output",
            str(OBSERVATORY),
        )
    return OBSERVATORY


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
    for table in ("summary", "scores"):
        rows = pd.read_csv(directory / f"{table}.csv")
        kept[table] = json.loads(rows.to_json(orient="records", double_precision=5))
    path = Path("benchmarks/results") / f"{name}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(kept))


def markdown(kept: dict) -> str:
    """Main metric of every arm; columns are units and label fractions."""
    rows = pd.DataFrame(kept["summary"])
    rows = rows[rows["metric"].isin(["accuracy", "ssim"])]
    columns = list(rows[["units", "label_fraction"]].drop_duplicates().itertuples(index=False))
    hardware = kept["hardware"]
    lines = [
        f"`{kept['command']}`",
        "",
        f"{len(kept['seeds'])} seeds, {kept['seconds'] / 60:.1f} min on {hardware['cpu']} "
        f"({hardware['num_cores']} cores, {hardware['device']}). Mean [95 % interval over seeds]; "
        f"{rows['metric'].iloc[0]} on {int(rows['num_test'].max())} test windows.",
        "",
        "| decoder | " + " | ".join(f"{u}, {f:.0%} labels" for u, f in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm in rows["arm"].unique():
        cells = []
        for units, fraction in columns:
            row = rows[
                (rows["arm"] == arm)
                & (rows["units"] == units)
                & (rows["label_fraction"] == fraction)
            ].iloc[0]
            interval = ""
            if pd.notna(row["seed_low"]):
                interval = f" [{row['seed_low']:.3f}, {row['seed_high']:.3f}]"
            cells.append(f"{row['mean']:.3f}{interval}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
