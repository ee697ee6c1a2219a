"""Several processes take the same steps as one, and none waits for ever for another that died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.data_parallel import LostProcessError, find_processes, is_first_process
from tiny_training import QUICK, Watched, make_source, run

START = multiprocessing.get_context("forkserver")
# imported once in the server, so that a process starts in no time
START.set_forkserver_preload(["tiny_training", "lightning.pytorch.strategies"])
CONFIG = replace(
    QUICK, max_steps=24, checkpoint_every=2, valid_every=6, jitter=0.4, ema_decay=0.9, patience=3
)


def fit_as(rank: int, port: int, num_ranks: int, arguments: dict[str, Any], results: Any) -> None:
    """What torchrun starts: one process of a fit."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    try:
        results.put((rank, fit_here(**arguments, is_last=rank == num_ranks - 1)))
    except LostProcessError as error:
        results.put((rank, str(error)))


def fit_here(
    *,
    config: TrainingConfig = CONFIG,
    dropout: float = 0.0,
    stop: tuple[int, int] | None = None,
    directory: Path | None = None,
    num_valid: int = 40,
    is_last: bool = True,
) -> list[Any]:
    """Weights, curves and best step; ``stop`` is when the last process is sent which signal."""
    module = Stopping(config, dropout, stop if is_last else None)
    valid = make_source(1).take(np.arange(num_valid))
    result = run(module, valid=valid, checkpoint_directory=directory)
    return [module.weight.tolist(), result.curves.to_numpy().tolist(), result.best_step]


class Stopping(Watched):
    """Kills or freezes its own process after a step."""

    def __init__(self, config: TrainingConfig, dropout: float, stop: tuple | None) -> None:
        super().__init__(config, dropout, None)
        self.stop = stop

    def on_before_zero_grad(self, optimizer) -> None:
        if self.stop is not None and self.global_step == self.stop[0]:
            os.kill(os.getpid(), self.stop[1])


def start(num_ranks: int, results: Any, **arguments: Any) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        START.Process(target=fit_as, args=(rank, port, num_ranks, arguments, results), daemon=True)
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    return processes


@pytest.fixture
def results() -> Iterator[Any]:
    queue = START.Queue()
    yield queue
    queue.close()


def fit_in(num_ranks: int, results: Any, **arguments: Any) -> list[list]:
    """What every rank of a fit returns."""
    processes = start(num_ranks, results, **arguments)
    returned = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [returned[rank] for rank in range(num_ranks)]


def assert_same(one: list, two: list, *, rtol: float) -> None:
    np.testing.assert_allclose(one[0], two[0], rtol=rtol)
    assert [row[:2] for row in one[1]] == [row[:2] for row in two[1]]
    np.testing.assert_allclose([row[2] for row in one[1]], [row[2] for row in two[1]], rtol=rtol)
    assert one[2] == two[2]


@pytest.mark.parametrize("num_valid", [40, 19, 3], ids=["even", "uneven", "fewer than ranks"])
def test_two_processes_fit_what_one_fits(results, num_valid):
    first, second = fit_in(2, results, num_valid=num_valid)
    assert first == second
    assert_same(first, fit_here(num_valid=num_valid), rtol=1e-5)


def test_the_same_parts_are_the_same_steps_however_many_processes_take_them(results):
    first, second = fit_in(2, results, dropout=0.5)
    assert first == second
    alone = fit_here(config=replace(CONFIG, accumulate=2), dropout=0.5)
    assert_same(first, alone, rtol=1e-5)


def test_only_the_first_process_writes(results, tmp_path):
    fit_in(2, results, directory=tmp_path)
    names = ["fitted.ckpt", "step-00000020.ckpt", "step-00000022.ckpt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    first, second = fit_in(2, results, directory=tmp_path)  # at once, from what was fitted
    assert first == second


def ended(processes: list[Any], timeout: float) -> float:
    """Seconds until all processes have ended."""
    began = time.monotonic()
    for process in processes:
        process.join(max(0.0, began + timeout - time.monotonic()))
    assert all(process.exitcode is not None for process in processes)
    return time.monotonic() - began


def test_a_rank_that_dies_ends_the_run_which_goes_on_from_its_last_checkpoint(results, tmp_path):
    [through, _] = fit_in(2, results, dropout=0.5)
    dying = start(2, results, dropout=0.5, directory=tmp_path, stop=(9, signal.SIGKILL))
    ended(dying, timeout=60)
    assert dying[1].exitcode == -signal.SIGKILL
    rank, message = results.get(timeout=10)
    assert rank == 0
    assert message.startswith("Another process of this fit died")
    assert "The same command resumes from the last checkpoint" in message
    assert max(path.name for path in tmp_path.iterdir()) == "step-00000008.ckpt"
    [resumed, _] = fit_in(2, results, dropout=0.5, directory=tmp_path)
    assert resumed == through


def test_all_ranks_end_together_when_one_is_told_to_end(results, tmp_path):
    config = replace(CONFIG, checkpoint_every=1000)
    told = start(2, results, config=config, directory=tmp_path, stop=(9, signal.SIGTERM))
    ended(told, timeout=60)
    assert [process.exitcode for process in told] == [143, 143]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010.ckpt"]


def test_a_rank_that_does_not_answer_ends_the_run_in_time(results, tmp_path):
    config = replace(CONFIG, rank_timeout=3.0)
    first, frozen = start(2, results, config=config, stop=(9, signal.SIGSTOP))
    ended([first], timeout=60)
    assert "did not answer for 3 s" in results.get(timeout=10)[1]
    frozen.kill()
    frozen.join()


def test_processes_that_torchrun_has_not_started_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 2 but LOCAL_RANK.*'torchrun"):
        find_processes()


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert find_processes().parts(3) == range(3)
    assert is_first_process()
