"""A stranger's first afternoon, timed: from nothing to the reports of two real sessions.

    python benchmarks/first_afternoon.py --data ../shared/data

Makes a fresh environment, installs the wheel of HEAD as a user would, and runs every command of
docs/first_afternoon.md, in its order, in an empty folder beside the data.
Writes benchmarks/results/first_afternoon.json and .md: minutes and megabytes of every step. Takes
half an hour on a quiet machine; `--quick WORD` makes trials of runs that WORD stands in.

Minutes count what other work takes away of the machine; the processor's minutes, beside them, do
not.
"""

import argparse
import json
import os
import re
import resource
import shlex
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from install import CPU, TORCH, Environment, build_wheel, git

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first_afternoon.md"
RESULTS = Path(__file__).parent / "results" / "first_afternoon.json"
INSTALL = "pip install poyo-ssl"
"""How the page installs; here the wheel of HEAD, and torch for CPUs as the page says."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", default="", help="a trial of runs whose command has this word")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = spend_it(Path(folder), options.data.resolve(), options.quick)
    command = f"python benchmarks/first_afternoon.py --data {options.data}"
    result = {
        "command": command + f" --quick {options.quick}" * bool(options.quick),
        "commit": git("rev-parse", "--short", "HEAD"),
        "cores": os.cpu_count(),
        "steps": steps,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(format_markdown(result))
    print(format_markdown(result))


def spend_it(folder: Path, data: Path, quick: str) -> list[dict]:
    wheel = build_wheel(git("rev-parse", "HEAD"), folder)
    desk = folder / "desk" / "poyo-ssl"
    desk.mkdir(parents=True)
    (desk.parent / "shared").mkdir()
    (desk.parent / "shared" / "data").symlink_to(data)
    environment = Environment(folder / "environment")
    steps = []
    for language, text in blocks():
        if language == "yaml":
            (desk / "source.yaml").write_text(text)
            continue
        for command in commands(text):
            print(f"$ {command}", flush=True)
            if command.startswith(INSTALL):
                options = ("--retries", "0", "--extra-index-url", CPU)
                run = partial(environment.install, TORCH, str(wheel), *options)
            else:
                is_trial = quick and command.startswith("poyo-ssl run") and quick in command
                command += " --quick" * bool(is_trial)
                run = partial(call, command, environment, desk)
            steps.append(timed(command, folder, run))
    steps.append(opened(desk))
    return steps


def blocks() -> list[tuple[str, str]]:
    """Language and text of the page's fenced blocks."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)


def commands(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def call(command: str, environment: Environment, desk: Path) -> None:
    path = f"{environment.bin}{os.pathsep}{os.environ['PATH']}"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(shlex.split(command), check=True, cwd=desk, env={**alone, "PATH": path})


def timed(name: str, folder: Path, run) -> dict:
    """Minutes of a step, and by how many megabytes the folder grew."""
    before, size = resource.getrusage(resource.RUSAGE_CHILDREN), megabytes(folder)
    started = time.perf_counter()
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "step": name,
        "minutes": (time.perf_counter() - started) / 60,
        "processor_minutes": processor / 60,
        "mb": megabytes(folder) - size,
    }


def megabytes(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def opened(desk: Path) -> dict:
    """The reports, which need nothing but a browser."""
    reports = sorted(desk.glob("runs/*/report.html"))
    assert len(reports) == len(list(desk.glob("runs/*"))) > 0, "a run has no report"
    return {
        "step": "open " + " and ".join(str(path.relative_to(desk)) for path in reports),
        "minutes": 0.0,
        "processor_minutes": 0.0,
        "mb": sum(path.stat().st_size for path in reports) / 1e6,
    }


def format_markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}` at {result['commit']}, {result['cores']} cores that other work "
        "shared: the processor's minutes are what the machine itself needed, on all its cores.",
        "",
        "| step | minutes | processor minutes | MB on the disk |",
        "|---|---|---|---|",
    ]
    for step in result["steps"]:
        lines.append(
            f"| `{step['step']}` | {step['minutes']:.1f} | {step['processor_minutes']:.1f} "
            f"| {step['mb']:.1f} |"
        )
    total = sum(step["minutes"] for step in result["steps"])
    processor = sum(step["processor_minutes"] for step in result["steps"])
    lines.append(f"| all | {total:.0f} | {processor:.0f} | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
