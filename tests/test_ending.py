"""What ends a run early says so, leaves no process behind, and costs nothing that was finished.

Runs are told to end when their first checkpoint is seen: their fits, of a few steps, wait there for
it, so that it comes in mid-fit however fast the machine is. Output comes through a pipe, which is
at its end only when every process that holds it is gone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from poyo_ssl import worker_processes
from poyo_ssl.cli import main
from poyo_ssl.comparison.run import run
from poyo_ssl.ending import ToldToEnd, end, on_signals
from poyo_ssl.output_directory import OutputError, alone_in
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.training.memory import is_out_of_memory
from poyo_ssl.worker_processes import call_in_processes
from tiny_runs import tiny_observatory, tiny_run_config

PATIENCE = 300.0
"""Seconds to wait for what must happen at last, however busy the machine is."""
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
    pytest.mark.usefixtures("units_undescribed"),
]

CONFIG = {
    "tasks": ["direction"],
    "units": ["all"],
    "arms": ["pretrained"],
    "num_seeds": 2,
    "splits": {"valid_fraction": 0.1, "test_fraction": 0.2, "held_out_blocks": 1, "guard": 0.5},
    "predictability": {"min_timesteps": 100},
    "encoder": {
        "dim": 16, "depth": 1, "num_heads": 2, "dim_head": 8, "latents_per_step": 2,
        "latent_step": 0.5, "patch_length": 0.5,
    },
    "labels": {"members": 1, "training": {"max_steps": 3, "batch_size": 4}},
    "pretraining": {"training": {"max_steps": 12, "batch_size": 4, "checkpoint_every": 1}},
}  # fmt: skip

WAITING = """
import os, select, signal
told, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)  # gets a byte with every signal
replace = os.replace

def replace_and_wait(source, target, **places):
    replace(source, target, **places)
    is_checkpoint = "/checkpoints/step-" in os.fspath(target)
    while is_checkpoint and os.path.exists(os.environ["WAIT_FOR"]):
        if select.select([told], [], [], 0.05)[0]:
            break

os.replace = replace_and_wait
"""
"""Makes processes wait when they have written a checkpoint, while a file is there, until a signal
has come at any time."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Recordings, a config, and what makes fits wait."""
    place = tmp_path_factory.mktemp("place")
    (place / "waiting").mkdir()
    (place / "waiting" / "sitecustomize.py").write_text(WAITING)
    for recording in tiny_observatory():
        save_recording(recording, place / f"{recording.recording_id}.h5")
    (place / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    return place


def arguments(place: Path, output: Path, jobs: int) -> list[str]:
    return [
        "run", *map(str, sorted(place.glob("*.h5"))),
        "--output", str(output), "--config", str(place / "run.yaml"), "--jobs", str(jobs),
    ]  # fmt: skip


def start(
    place: Path, output: Path, jobs: int = 2, wait_for: Path | None = None
) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    if wait_for is not None:
        paths = [str(place / "waiting"), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {"WAIT_FOR": str(wait_for), "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, "-m", "poyo_ssl", *arguments(place, output, jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,  # its process group is what a terminal would signal
    )


@pytest.fixture
def wait_for(tmp_path) -> Path:
    """While it is there, a fit waits at its first checkpoint until it gets a signal."""
    path = tmp_path / "wait for a signal"
    path.touch()
    return path


@pytest.fixture
def started(place, tmp_path, wait_for) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts runs, and ends those that a failed test leaves."""
    processes: list[subprocess.Popen[str]] = []

    def begin(jobs: int = 2) -> subprocess.Popen[str]:
        processes.append(start(place, tmp_path / "run", jobs, wait_for))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    latest = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < latest
        time.sleep(0.01)


def wait_for_checkpoints(output: Path, process: subprocess.Popen[str]) -> None:
    wait_until(lambda: any(output.glob("pretrained/*/seed-*/checkpoints/step-*.ckpt")), process)


def end_of(process: subprocess.Popen[str]) -> SimpleNamespace:
    """What a process said until it and all its children were gone, and its exit status."""
    said, _ = process.communicate(timeout=PATIENCE)
    return SimpleNamespace(status=process.returncode, said=" ".join(said.split()))


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Worker processes of a run. Lines are whole (-ww), however narrow the terminal is."""
    found = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "-g", str(process.pid)],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    return [int(line.split()[0]) for line in found.splitlines() if "popen_loky" in line]


def scores(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "scores.csv").drop(columns=["seconds", "pretraining_seconds"])


@pytest.fixture(scope="module")
def undisturbed(place, tmp_path_factory) -> pd.DataFrame:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(arguments(place, output, jobs=1)) == 0
    return scores(output)


@pytest.mark.parametrize(
    ("number", "jobs"),
    [
        (signal.SIGTERM, 1),
        (signal.SIGINT, 1),
        (signal.SIGHUP, 1),
        (signal.SIGINT, 2),
        (signal.SIGHUP, 2),
    ],
)
def test_a_run_that_is_told_to_end_says_so_and_leaves_no_process(started, tmp_path, number, jobs):
    process = started(jobs)
    wait_for_checkpoints(tmp_path / "run", process)
    if number == signal.SIGTERM:
        process.terminate()  # as timeout and batch systems do: the process alone
    else:
        os.killpg(process.pid, number)  # as terminals do: its children, too
    require_end_by(number, end_of(process), tmp_path / "run")


def require_end_by(number: int, ended: SimpleNamespace, output: Path) -> None:
    assert ended.status == 128 + number
    assert "The same command resumes" in ended.said
    assert "Traceback" not in ended.said
    assert not [*output.rglob(".*.partial")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_ended_resumes_with_the_same_numbers(
    started, place, tmp_path, undisturbed, number
):
    process = started(jobs=2)
    wait_for_checkpoints(tmp_path / "run", process)
    os.kill(process.pid, number)
    ended = end_of(process)  # no worker outlives it
    if number == signal.SIGTERM:
        require_end_by(number, ended, tmp_path / "run")
    assert main(arguments(place, tmp_path / "run", jobs=1)) == 0
    pd.testing.assert_frame_equal(scores(tmp_path / "run"), undisturbed, check_exact=True)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found by ps of Linux")
def test_a_killed_worker_costs_no_fit_and_shows_no_traceback(
    started, tmp_path, wait_for, undisturbed
):
    process = started()
    wait_for_checkpoints(tmp_path / "run", process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    wait_for.unlink()
    ended = end_of(process)
    assert ended.status == 0, ended.said
    assert "A worker process was killed; memory may have run out" in ended.said
    assert "Traceback" not in ended.said
    pd.testing.assert_frame_equal(scores(tmp_path / "run"), undisturbed, check_exact=True)


def test_a_run_in_a_directory_that_is_written_to_is_refused(place, tmp_path, capsys):
    with alone_in(tmp_path / "run"):
        assert main(arguments(place, tmp_path / "run", jobs=2)) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "Another process is writing to" in said
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_an_output_directory_that_vanishes_is_named(started, tmp_path, wait_for):
    process = started()
    wait_for_checkpoints(tmp_path / "run", process)
    (tmp_path / "run").rename(tmp_path / "moved")
    wait_for.unlink()
    ended = end_of(process)
    assert ended.status == 1
    assert re.search("was moved, emptied or removed|cannot be written", ended.said)
    assert "Traceback" not in ended.said


# parts -----------------------------------------------------------------------------------------


def refuse(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("number", [28, 27])
def test_a_full_disk_is_named_and_what_was_finished_is_kept(tmp_path, monkeypatch, number):
    recordings, config = tiny_observatory(), tiny_run_config(arms=(), num_seeds=1)
    module = "poyo_ssl.comparison.fits.save_fit"
    with monkeypatch.context() as patch:
        patch.setattr(module, lambda *_: refuse(OSError(number, os.strerror(number), "a.csv")))
        with pytest.raises(OutputError, match=r"'a.csv' cannot be written .*MiB are free.*resume"):
            run(recordings, tmp_path, config)
    run(recordings, tmp_path, config)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is measured by Linux")
def test_too_little_memory_is_said_with_what_takes_less_of_it(place, tmp_path, capfd):
    resource = pytest.importorskip("resource")
    child = os.fork()
    if child == 0:
        status = 99
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 16 * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            status = main([*arguments(place, tmp_path / "run", 1), "--encoder.dim", "4096"])
            sys.stderr.flush()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert re.search("Memory ran out .* with fewer jobs or workers, .* a smaller batch_size", said)
    assert "Traceback" not in said


def test_other_errors_of_files_stay_what_they_are(tmp_path, monkeypatch):
    error = PermissionError(13, "Permission denied", "a.csv")
    monkeypatch.setattr("poyo_ssl.comparison.fits.save_fit", lambda *_: refuse(error))
    with pytest.raises(PermissionError, match=r"a\.csv"):
        run(tiny_observatory(), tmp_path, tiny_run_config(arms=(), num_seeds=1))


def test_a_directory_is_free_again_after_its_writer(tmp_path):
    for _ in range(2):
        with (
            alone_in(tmp_path),
            pytest.raises(OutputError, match="choose another"),
            alone_in(tmp_path),
        ):
            pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


def test_signals_that_are_ignored_stay_so_and_others_come_back():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        with on_signals(end):
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(ToldToEnd) as told:
                signal.raise_signal(signal.SIGTERM)
        assert told.value.code == 143
        after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        assert after == handlers
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_calls_in_one_process_are_made_when_they_are_asked_for():
    seen: list[int] = []
    calls = call_in_processes([lambda: seen.append(1), lambda: seen.append(2)], workers=1)
    next(calls)
    assert seen == [1]
    next(calls)
    assert seen == [1, 2]


class _RefersToItself:
    def __init__(self) -> None:
        self.oneself = self


def test_a_worker_frees_what_a_call_leaves_behind():
    left = []

    def call() -> None:
        fitted = _RefersToItself()
        left.append(weakref.ref(fitted))

    worker_processes._call_as_worker(0, call)
    assert left[0]() is None


def told_to_end_on_arrival(path: Path) -> Callable[[], None]:
    """A call whose imports take until the worker is told to end; it makes a file when called."""
    os.kill(os.getpid(), signal.SIGTERM)
    return path.touch


class ToldWhileItArrives:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return told_to_end_on_arrival, (self.path,)

    def __call__(self) -> None:
        self.path.touch()


def test_a_worker_that_is_told_to_end_before_its_first_call_makes_none_and_says_so(tmp_path):
    calls = [ToldWhileItArrives(tmp_path / name) for name in "ab"]
    with pytest.raises(ToldToEnd):
        list(call_in_processes(calls, workers=2))
    assert not [*tmp_path.iterdir()]
