"""Kills what does the fits of a run on a cluster, and asks whether any is lost or done twice.

    OMP_NUM_THREADS=1 python benchmarks/cluster_kills.py --kills 20

A small run of two invented recordings is done by one process, by a Ray cluster of two nodes on
this machine, and by the arrays of a stand-in for SLURM, two tasks at a time. As soon as somebody
does a fit, one who does is killed (SIGKILL) at a random moment, again and again. Once, the head of
the Ray cluster is killed: what it leaves is stopped, a new head and node are started, and so is the
same command. A killed task of an array is started again, as ``--requeue`` does where a node fails.

What a fit or an encoder leaves last is published by a rename, so one that is done a second time is
another file: every file that was ever seen there is counted. The tables of each run are compared
with those of one process. Writes benchmarks/results/cluster_kills.json and .md. Takes about ten
minutes on two cores.
"""

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

os.environ |= {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # a lost head is noticed sooner
    "RAY_USAGE_STATS_ENABLED": "0",
}

import numpy as np
import psutil
import yaml
from ray.cluster_utils import Cluster

from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_observatory
from poyo_ssl.recordings.storage import save_recording

SIMULATOR = SimulatorConfig(
    lines=("Sst", "Cux2"),
    recordings_per_line=1,
    units_per_recording=8,
    sampling_rate=10.0,
    grating_trials_per_condition=1,
    blank_sweeps=2,
    grating_blocks=2,
    movie_frames=240,
    movie_repeats=3,
    movie_height=16,
    movie_width=32,
    include_static_gratings=False,
    spontaneous_duration=20.0,
    gap_duration=5.0,
)
TRAINING = {"max_steps": 100, "batch_size": 8, "valid_every": 50, "patience": None}
CONFIG = {
    "tasks": ["direction"],
    "units": ["all"],
    "arms": ["scratch", "pretrained"],
    "num_seeds": 2,
    "splits": {"valid_fraction": 0.1, "test_fraction": 0.2, "guard": 0.5},
    "predictability": {"min_timesteps": 100},
    "encoder": {
        "dim": 16, "depth": 1, "num_heads": 2, "dim_head": 16, "latents_per_step": 2,
        "latent_step": 0.5, "patch_length": 0.5,
    },
    "pretraining": {"training": {**TRAINING, "checkpoint_every": 20}},
    "labels": {"training": TRAINING, "members": 1},
}  # fmt: skip
DONE = ("pretrained/*/*/config.json", "decoders/**/scores.json")
"""What a finished encoder and a finished fit leave last."""
LONGEST_WAIT = 2.0
"""Seconds from the moment at which a fit was begun to the kill, at most."""
TABLES = ("predictions.csv", "curves.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of workers, on each cluster")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        assert place.run("alone", "--jobs", "1").wait() == 0
        result = {
            "command": f"python benchmarks/cluster_kills.py --kills {options.kills}",
            "ray": kill_on_ray(place, options.kills, rng),
            "slurm": kill_in_arrays(place, options.kills, rng),
            "minutes": round((time.perf_counter() - began) / 60, 1),
        }
    results = Path(__file__).parent / "results"
    (results / "cluster_kills.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "cluster_kills.md").write_text(format_markdown(result))
    print(format_markdown(result))


class Place:
    """A folder with recordings and a config, and the runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for recording in simulate_observatory(SIMULATOR):
            save_recording(recording, folder / f"{recording.recording_id}.h5")
        (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(self, output: str, *options: str) -> subprocess.Popen:
        """``poyo-ssl run`` in a process of its own."""
        files = sorted(path.name for path in self.folder.glob("*.h5"))
        command = [sys.executable, "-m", "poyo_ssl", "run", *files, "--config", "run.yaml"]
        log = (self.folder / f"{output}.log").open("a")
        return subprocess.Popen(
            [*command, "--output", output, *options], cwd=self.folder, stdout=log, stderr=log
        )

    def is_same(self, output: str) -> bool:
        """Whether a run has the answers and curves of one process, to the bit."""
        pairs = [[self.folder / run / name for run in ("alone", output)] for name in TABLES]
        return all(one.read_bytes() == other.read_bytes() for one, other in pairs)


class Watch:
    """Every file that was ever seen where finished fits leave theirs.

    Args:
        directory: Of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen: dict[Path, set[tuple[int, int]]] = defaultdict(set)

    def look(self) -> None:
        for pattern in DONE:
            for path in self.directory.glob(pattern):
                status = path.stat()
                self.seen[path].add((status.st_ino, status.st_mtime_ns))

    def is_busy(self) -> bool:
        """Whether anybody does a fit now."""
        return any(self.directory.glob("*/**/.claim"))

    def counts(self, place: Place) -> dict:
        self.look()
        names = {
            path.relative_to(place.folder / "alone")
            for pattern in DONE
            for path in (place.folder / "alone").glob(pattern)
        }
        found = {path.relative_to(self.directory) for path in self.seen}
        return {
            "fits": len(names),
            "lost": len(names - found),
            "done_twice": sum(len(versions) > 1 for versions in self.seen.values()),
            "claims_left": sum(1 for _ in self.directory.rglob(".claim")),
            "same_as_one_process": place.is_same(self.directory.name),
        }


def kill_again_and_again(
    watch: Watch,
    is_running: Callable[[], bool],
    victims: Callable[[], list[psutil.Process]],
    num_kills: int,
    rng: np.random.Generator,
) -> int:
    """Kills one of those who do fits at random moments, until the run ends or it was enough."""
    kills = 0
    while is_running() and kills < num_kills:
        watch.look()
        if not watch.is_busy():
            time.sleep(0.05)
            continue
        time.sleep(rng.uniform(0.0, LONGEST_WAIT))
        watch.look()
        found = victims()
        if found and watch.is_busy():
            with suppress(psutil.NoSuchProcess):
                found[rng.integers(len(found))].send_signal(signal.SIGKILL)
                kills += 1
                time.sleep(0.2)
    return kills


# Ray -----------------------------------------------------------------------------------------


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    options = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    cluster.add_node(**options)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def workers_of(cluster: Cluster) -> list[psutil.Process]:
    """Processes that do a task now."""
    found = []
    for node in cluster.list_all_nodes():
        for info in node.all_processes["raylet"]:
            for child in psutil.Process(info.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it has come to its end meanwhile
                    found += [child] * ("ray::_call" in " ".join(child.cmdline()))
    return found


def kill_on_ray(place: Place, num_kills: int, rng: np.random.Generator) -> dict:
    """Kills half of the workers, then the head, then the other half."""
    watch, first = Watch(place.folder / "ray"), num_kills // 2
    with two_nodes() as cluster:
        driver = place.run("ray", "--address", cluster.address)
        kills = kill_again_and_again(
            watch, partial(is_running, driver), partial(workers_of, cluster), first, rng
        )
        assert is_running(driver)
        began = time.monotonic()
        for info in itertools.chain(*cluster.head_node.all_processes.values()):
            info.process.send_signal(signal.SIGKILL)
        status = end_of(driver, watch)
        until_noticed = time.monotonic() - began
    with two_nodes() as cluster:
        driver = place.run("ray", "--address", cluster.address)
        kills += kill_again_and_again(
            watch, partial(is_running, driver), partial(workers_of, cluster), num_kills - kills, rng
        )
        assert end_of(driver, watch) == 0, (place.folder / "ray.log").read_text()
    return {
        "kills": kills,
        "kills_of_the_head": 1,
        "status_without_head": status,
        "seconds_until_the_head_was_missed": round(until_noticed, 1),
        **watch.counts(place),
    }


def is_running(process: subprocess.Popen) -> bool:
    return process.poll() is None


def end_of(process: subprocess.Popen, watch: Watch) -> int:
    """The exit status of a process, which is watched until it ends."""
    while is_running(process):
        watch.look()
        time.sleep(0.1)
    return process.returncode


# SLURM ---------------------------------------------------------------------------------------

SRUN = '#!/bin/bash\nshift\nexec "$@"\n'
SCONTROL = "#!/bin/bash\n"


def kill_in_arrays(place: Place, num_kills: int, rng: np.random.Generator) -> dict:
    """Kills tasks of arrays, which are started again."""
    programs = place.folder / "programs"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    assert place.run("slurm", "--plan", "slurm", "--parts", "2").wait() == 0
    watch, kills = Watch(place.folder / "slurm"), 0
    for name in ("pretrain", "decode", "report"):  # each begins when the one before has ended
        array = Array(place.folder / "slurm" / "slurm" / f"{name}.sh")
        while array.is_running():
            kills += kill_again_and_again(
                watch, array.is_running, array.processes, min(1, num_kills - kills), rng
            )
            watch.look()
            time.sleep(0.1)
    return {"kills": kills, **watch.counts(place)}


class Array:
    """Tasks of a script of SLURM; those that are killed are started again.

    Args:
        script: As ``poyo-ssl run --plan slurm`` wrote it.
    """

    def __init__(self, script: Path) -> None:
        found = re.search(r"--array=1-(\d+)", script.read_text())
        self.script = script
        self.tasks = {
            task: self._start(task) for task in range(1, int(found[1]) + 1 if found else 2)
        }

    def _start(self, task: int) -> subprocess.Popen:
        environment = os.environ | {
            "SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_ARRAY_TASK_ID": str(task)
        }  # fmt: skip
        log = self.script.with_suffix(".log").open("a")
        return subprocess.Popen(["bash", str(self.script)], env=environment, stdout=log, stderr=log)

    def is_running(self) -> bool:
        for task, process in self.tasks.items():
            if process.poll() not in (None, 0):
                self.tasks[task] = self._start(task)
        return any(process.poll() is None for process in self.tasks.values())

    def processes(self) -> list[psutil.Process]:
        """The Python of every task."""
        return [
            child
            for process in self.tasks.values()
            if process.poll() is None
            for child in psutil.Process(process.pid).children()
        ]


def format_markdown(result: dict) -> str:
    names = {
        "kills": "kills of a worker that did a fit",
        "kills_of_the_head": "kills of the head",
        "fits": "encoders and fits",
        "lost": "of them lost",
        "done_twice": "of them done twice",
        "claims_left": "claims left over",
        "same_as_one_process": "answers and curves as of one process, to the bit",
        "seconds_until_the_head_was_missed": "seconds until the command missed the head",
    }
    rows = [
        f"| {text} | {_cell(result['ray'], name)} | {_cell(result['slurm'], name)} |"
        for name, text in names.items()
    ]
    lines = [
        f"`{result['command']}`",
        "",
        f"{result['minutes']} minutes on two cores that other jobs shared.",
        "",
        "| | Ray, two nodes | SLURM arrays (a stand-in) |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _cell(counts: dict, name: str) -> str:
    value = counts.get(name, "")
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
