"""What `pip install poyo-ssl` costs: packages, megabytes and seconds, in fresh environments.

    python benchmarks/install.py cfeb1f1 HEAD "HEAD[hub]"

Every argument is a commit of this repository, with extras in brackets. Its wheel is built and
installed into a new environment beside the CPU build of torch, then runs from an empty directory.
Writes benchmarks/results/install.json and .md; a row that is measured again replaces its
predecessor. Takes two minutes a row where packages have been downloaded before.

Seconds are the processor's, which other work on the machine does not change: of pip, which compiles
what it installs and spends little on downloads, and of commands, the fastest of three with warm
files. Megabytes are those of all files of all packages but pip, compiled ones included.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TORCH = "torch==2.13.0"  # as in the Makefile
CPU = "https://download.pytorch.org/whl/cpu"
REPEATS = 3
LARGEST = 12
RESULTS = Path(__file__).parent / "results" / "install.json"
COMMANDS = {
    "import poyo_ssl": ["python", "-c", "import poyo_ssl"],
    "import of every public name": ["python", "-c", "from poyo_ssl import *"],
    "poyo-ssl --help": ["poyo-ssl", "--help"],
}
SIZES = """
import json
from importlib.metadata import distributions
files = {d.name: [f.locate() for f in d.files or ()] for d in distributions() if d.name != "pip"}
print(json.dumps({n: sum(p.stat().st_size for p in ps if p.is_file()) for n, ps in files.items()}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revisions", nargs="+", help="commits, such as HEAD or 'HEAD[hub]'")
    revisions = parser.parse_args().revisions
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for revision in revisions:
        commit, extras = re.fullmatch(r"([^\[]+)(\[.+\])?", revision).groups()
        name = git("rev-parse", "--short", commit) + (extras or "")
        rows[name] = measure(git("rev-parse", commit), extras or "")
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(format_markdown(rows))
    print(format_markdown(rows))


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def measure(commit: str, extras: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder) / "environment")
        wheel = build_wheel(commit, Path(folder))
        torch = environment.install(TORCH, "--retries", "0", "--extra-index-url", CPU)
        num_torch, size_torch = len(torch["sizes"]), sum(torch["sizes"].values())
        all_of_it = environment.install(f"poyo-ssl{extras} @ {wheel.as_uri()}")
        sizes = all_of_it["sizes"]
        empty = Path(folder) / "empty"
        empty.mkdir()
        return {
            "subject": git("show", "--no-patch", "--format=%s", commit),
            "wheel_mb": wheel.stat().st_size / 1e6,
            "packages_of_torch": num_torch,
            "mb_of_torch": size_torch / 1e6,
            "seconds_of_torch": torch["seconds"],
            "packages": len(sizes) - num_torch,
            "mb": (sum(sizes.values()) - size_torch) / 1e6,
            "seconds": all_of_it["seconds"],
            "largest_mb": {
                name: sizes[name] / 1e6
                for name in sorted(set(sizes) - set(torch["sizes"]), key=sizes.get, reverse=True)
            },
            "commands": {
                name: environment.time(command, empty, REPEATS)
                for name, command in COMMANDS.items()
            },
        }


def build_wheel(commit: str, folder: Path) -> Path:
    source, wheels = folder / "source", folder / "wheels"
    git("worktree", "add", "--detach", str(source), commit)
    try:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels)]
        subprocess.run([*command, str(source)], check=True)
    finally:
        git("worktree", "remove", "--force", str(source))
    [wheel] = wheels.iterdir()
    return wheel


class Environment:
    """A new virtual environment."""

    def __init__(self, directory: Path) -> None:
        venv.create(directory, with_pip=True)
        self.bin = directory / ("Scripts" if os.name == "nt" else "bin")

    def install(self, *arguments: str) -> dict:
        """Seconds of pip, and the size of every package afterwards."""
        seconds = self.time(["python", "-m", "pip", "install", "--quiet", *arguments])
        listed = subprocess.run(
            [self.bin / "python", "-c", SIZES], check=True, capture_output=True, text=True
        )
        return {"seconds": seconds, "sizes": json.loads(listed.stdout)}

    def time(self, command: list[str], folder: Path | None = None, repeats: int = 1) -> float:
        """Processor seconds of a command that ends well, the fastest of some."""
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        seconds = []
        for _ in range(repeats):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [self.bin / command[0], *command[1:]],
                check=True,
                stdout=subprocess.DEVNULL,
                cwd=folder,
                env=alone,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(seconds)


def format_markdown(rows: dict) -> str:
    commands = list(COMMANDS)
    lines = [
        "`python benchmarks/install.py " + " ".join(f'"{name}"' for name in rows) + "`",
        "",
        "Beside the CPU build of torch and what it needs "
        + "; ".join(
            sorted(
                {
                    f"{row['packages_of_torch']} packages, {row['mb_of_torch']:.0f} MB"
                    for row in rows.values()
                }
            )
        )
        + ". Seconds are the processor's.",
        "",
        "| commit | packages | MB | seconds to install | "
        + " | ".join(f"`{c}`, s" for c in commands)
        + " |",
        "|---" * (4 + len(commands)) + "|",
    ]
    for name, row in rows.items():
        cells = [
            f"{name} ({row['subject']})",
            str(row["packages"]),
            f"{row['mb']:.0f}",
            f"{row['seconds']:.0f}",
        ]
        cells += [f"{row['commands'][command]:.1f}" for command in commands]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for name, row in rows.items():
        largest = list(row["largest_mb"].items())[:LARGEST]
        lines += [
            f"Largest of {name}, MB: " + ", ".join(f"{n} {mb:.0f}" for n, mb in largest) + ".",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
