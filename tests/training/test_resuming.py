"""A fit that is stopped goes on as if nothing had happened, and trusts no damaged checkpoint."""

from __future__ import annotations

import copy
import errno
import logging
import os
import resource
import signal
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poyo_ssl import whole_files
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.modules import LabelDecoding
from poyo_ssl.model.checkpoints import CheckpointError, network_tensors
from poyo_ssl.model.fit import Fit
from poyo_ssl.model.readouts import LabelDecoder
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.resuming import (
    TrainingCheckpoints,
    TrainingStorageError,
    read_checkpoint,
)
from tiny_training import QUICK, MeanDecoding, StopError, Watched, make_source, run

BUSY = replace(QUICK, max_steps=24, checkpoint_every=2, valid_every=6, jitter=0.4)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def run_in_pieces(
    directory: Path, config: TrainingConfig, stops: list[int], **options: Any
) -> tuple[Watched, Fit, dict]:
    """A fit that is killed again and again; with what each step saw the last time it was taken."""
    seen: dict = {}
    for stop_after in [*stops, None]:
        module = Watched(config, 0.5, stop_after)
        try:
            result = run(module, checkpoint_directory=directory, **options)
        except StopError:
            assert stop_after is not None
        steps = {step for step, *_ in module.seen}
        seen = {k: v for k, v in seen.items() if k not in steps}
        for step, *values in module.seen:
            seen.setdefault(step, []).append(values)
    return module, result, seen


VALID = {"valid": make_source(1)}
ANSWERED = replace(make_source(0), teacher_answer=torch.full((40, 2), 0.5))


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"ema_decay": 0.9}, VALID),
        ({"optimizer": "lamb"}, VALID),
        ({"accumulate": 2}, {"is_mixed": True}),
        ({"accumulate": 2, "ema_decay": 0.9, "optimizer": "lamb"}, VALID | {"is_mixed": True}),
        ({"precision": "bfloat16", "ema_decay": 0.9}, VALID),
    ],
    ids=["plain", "averaged", "lamb", "in parts", "all of it", "bfloat16"],
)
def test_a_fit_that_was_killed_goes_on_with_the_same_steps_to_the_same_end(
    tmp_path, changes, options
):
    config = replace(BUSY, patience=3, **changes)
    through, result, seen = run_in_pieces(tmp_path / "one", config, [], **options)
    assert len({loss for steps in seen.values() for _, loss in steps}) > 20  # dropout, jitter
    again, resumed, seen_again = run_in_pieces(
        # at the first step, before, at and after checkpoints, before and after validations
        tmp_path / "two", config, [1, 2, 3, 5, 6, 7, 12, 13, 18, 22, 24], **options
    )  # fmt: skip
    assert sorted(seen_again) == list(range(24))
    assert seen_again == seen
    assert torch.equal(again.weight, through.weight)
    assert resumed.curves.equals(result.curves)
    assert resumed.best_step == result.best_step
    assert resumed.seconds > 0


class StoppingDecoding(LabelDecoding):
    """A real objective that stops after some steps."""

    stop_after: int | None = None

    def on_before_zero_grad(self, optimizer) -> None:
        if self.global_step == self.stop_after:
            raise StopError


def test_a_decoder_with_unit_embeddings_goes_on_too(tmp_path, tiny_encoder):
    training = replace(BUSY, ema_decay=0.9, patience=3, max_steps=12)
    weights = []
    for stops in ([None], [5, 9, None]):
        for stop_after in stops:
            torch.manual_seed(0)
            network = LabelDecoder(copy.deepcopy(tiny_encoder), num_classes=2, query_time=0.25)
            module = StoppingDecoding(network, FinetuningConfig(training=training))
            module.stop_after = stop_after
            try:
                run(module, valid=make_source(1), checkpoint_directory=tmp_path / str(len(stops)))
            except StopError:
                assert stop_after is not None
        weights.append(network_tensors(network))
    for name, value in weights[0].items():
        assert torch.equal(weights[1][name], value)


def test_keeping_checkpoints_does_not_change_a_fit(tmp_path):
    config = replace(BUSY, ema_decay=0.9, patience=3)
    one, two = MeanDecoding(config, dropout=0.5), MeanDecoding(config, dropout=0.5)
    plain = run(one, valid=make_source(1))
    kept = run(two, valid=make_source(1), checkpoint_directory=tmp_path)
    assert torch.equal(one.weight, two.weight)
    assert kept.curves.equals(plain.curves)


def test_early_stopping_counts_across_interruptions(tmp_path):
    # validation says the opposite of training, so it gets worse from the first step on
    config = replace(BUSY, max_steps=60, valid_every=2, patience=3, checkpoint_every=1)
    flipped = make_source(1, is_flipped=True)
    _, result, _ = run_in_pieces(tmp_path / "one", config, [], valid=flipped)
    _, resumed, _ = run_in_pieces(tmp_path / "two", config, [1, 2, 3, 4, 5], valid=flipped)
    last = result.curves.loc[result.curves["metric"] == "valid/loss", "step"].max()
    assert last < 60
    assert resumed.curves.equals(result.curves)
    assert resumed.best_step == result.best_step


def test_a_finished_fit_is_returned_at_once(tmp_path):
    first, second = Watched(BUSY, 0.5, None), Watched(BUSY, 0.5, stop_after=0)
    result = run(first, valid=make_source(1), checkpoint_directory=tmp_path)
    again = run(second, valid=make_source(1), checkpoint_directory=tmp_path)
    assert second.seen == []
    assert torch.equal(second.weight, first.weight)
    assert not second.training
    assert again.curves.equals(result.curves)
    assert (again.seconds, again.best_step) == (result.seconds, result.best_step)


def test_a_finished_fit_can_be_had_where_nothing_can_be_written_any_more(tmp_path, monkeypatch):
    run(Watched(BUSY, 0.5, None), checkpoint_directory=tmp_path)

    def fail(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("poyo_ssl.training.resuming.partial_file", fail)
    run(Watched(BUSY, 0.5, stop_after=0), checkpoint_directory=tmp_path)
    with pytest.raises(TrainingStorageError, match="Read-only file system"):
        run(Watched(BUSY, 0.5, stop_after=0), checkpoint_directory=tmp_path / "new")


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    run(MeanDecoding(replace(BUSY, keep_checkpoints=3)), checkpoint_directory=tmp_path)
    assert files(tmp_path) == [
        "fitted.ckpt",
        "step-00000018.ckpt",
        "step-00000020.ckpt",
        "step-00000022.ckpt",
    ]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    left = tmp_path / f".step-00000002.ckpt.{whole_files._HOST}-999999999-0a1b2c3d.partial"
    left.write_bytes(b"half")
    run(MeanDecoding(BUSY), checkpoint_directory=tmp_path)
    assert not any(name.endswith(".partial") for name in files(tmp_path))


def stop_after(steps: int, directory: Path, config: TrainingConfig = BUSY) -> None:
    with pytest.raises(StopError):
        run(Watched(config, 0.5, steps), checkpoint_directory=directory)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "emptied":
        content = bytearray()
    elif how == "truncated":
        del content[len(content) // 2 :]
    elif how == "bit-flipped":
        with zipfile.ZipFile(path) as file:  # a weight: torch.load would read on
            largest = max(file.infolist(), key=lambda i: ("/data/" in i.filename, i.file_size))
        content[largest.header_offset + 200 : largest.header_offset + 201] = b"!"
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["emptied", "truncated", "bit-flipped"])
def test_a_damaged_checkpoint_is_set_aside_and_an_older_one_is_used(tmp_path, caplog, how):
    through, *_ = run_in_pieces(tmp_path / "one", BUSY, [])
    directory = tmp_path / "two"
    stop_after(9, directory)
    damage(directory / "step-00000008.ckpt", how)
    module = Watched(BUSY, 0.5, None)
    with caplog.at_level(logging.WARNING):
        run(module, checkpoint_directory=directory)
    [message] = [record.getMessage() for record in caplog.records]
    assert "step-00000008.ckpt' (" in message
    assert "is damaged (" in message
    assert "set aside as 'step-00000008.ckpt.damaged'" in message
    assert module.seen[0][0] == 6
    assert torch.equal(module.weight, through.weight)
    assert "step-00000008.ckpt.damaged" in files(directory)


def test_without_any_whole_checkpoint_a_fit_starts_over(tmp_path, caplog):
    through, *_ = run_in_pieces(tmp_path / "one", BUSY, [])
    directory = tmp_path / "two"
    stop_after(9, directory)
    for path in directory.iterdir():
        damage(path, "truncated")
    module = Watched(BUSY, 0.5, None)
    run(module, checkpoint_directory=directory)
    assert module.seen[0][0] == 0
    assert torch.equal(module.weight, through.weight)


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path):
    stop_after(3, tmp_path)
    path = tmp_path / "step-00000002.ckpt"
    whole, expected = path.read_bytes(), read_checkpoint(path)
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            # what only names or pads the contents may change
            assert repr(read_checkpoint(path)) == repr(expected)
        except CheckpointError:
            refused += 1
    assert refused > 30
    for length in rng.integers(0, len(whole), 40):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is damaged"):
            read_checkpoint(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "step-00000002.ckpt"
    torch.save({"fingerprint": Hostile()}, path)
    with pytest.raises(CheckpointError, match=r"is damaged \(Weights only load failed"):
        read_checkpoint(path)
    assert files(tmp_path) == ["step-00000002.ckpt"]


@pytest.mark.parametrize(
    ("changes", "options", "difference"),
    [
        ({"lr": 0.01}, {}, r"config.lr: 0.05 there, 0.01 here"),
        ({"max_steps": 48}, {}, r"config.max_steps: 24 there, 48 here"),
        ({}, {"seed": 1}, r"seed: 0 there, 1 here"),
        ({}, {"batch_seed": 1}, r"batches.seed: 0 there, 1 here"),
        ({}, {"is_mixed": True}, r"batches.*nothing"),
        ({}, {"train": make_source(0, is_flipped=True)}, r"batches.activity: sha256 .* there, sha"),
        ({}, {"train": ANSWERED}, r"batches.teacher: none there, size .* here"),
        ({}, {"identity": {"encoder": "b"}}, r"encoder: nothing there, b here"),
    ],
)
@pytest.mark.parametrize("steps", [9, None], ids=["stopped", "finished"])
def test_checkpoints_of_another_fit_are_refused_and_left_alone(
    tmp_path, steps, changes, options, difference
):
    if steps is None:
        run(Watched(BUSY, 0.5, None), checkpoint_directory=tmp_path)
    else:
        stop_after(steps, tmp_path)
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=difference) as caught:
        run(Watched(replace(BUSY, **changes), 0.5, None), checkpoint_directory=tmp_path, **options)
    assert f"Choose a new directory, or delete '{tmp_path}' to start over" in str(caught.value)
    assert files(tmp_path) == before


def test_checkpoints_of_another_network_are_refused(tmp_path):
    stop_after(9, tmp_path)
    module = Watched(BUSY, 0.5, None)
    module.network.append(torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"weights.network.2.bias: nothing there, \[2\] here"):
        run(module, checkpoint_directory=tmp_path)


def test_how_often_checkpoints_are_written_may_change_between_runs(tmp_path):
    stop_after(9, tmp_path)
    module = Watched(replace(BUSY, checkpoint_every=5, keep_checkpoints=1), 0.5, None)
    run(module, checkpoint_directory=tmp_path)
    assert module.seen[0][0] == 8
    assert files(tmp_path) == ["fitted.ckpt", "step-00000020.ckpt"]


def test_a_full_disk_is_an_error_that_says_so_and_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    stop_after(5, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("poyo_ssl.whole_files.os.fsync", fail)
        with pytest.raises(TrainingStorageError) as caught:
            run(Watched(BUSY, 0.5, None), checkpoint_directory=tmp_path)
    message = str(caught.value)
    assert f"'{tmp_path / 'step-00000006.ckpt'}' cannot be written" in message
    assert "No space left on device" in message
    assert "make room" in message
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    module = Watched(BUSY, 0.5, None)
    run(module, checkpoint_directory=tmp_path)
    assert module.seen[0][0] == 4


def test_a_checkpoint_that_outgrows_the_room_leaves_no_half_file(tmp_path):
    stop_after(5, tmp_path)
    before = files(tmp_path)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(TrainingStorageError, match="File too large"):
            run(Watched(BUSY, 0.5, None), checkpoint_directory=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_refused_before_training(tmp_path):
    tmp_path.chmod(0o500)
    module = Watched(BUSY, 0.5, None)
    with pytest.raises(TrainingStorageError, match=r"cannot be written \(Permission denied"):
        run(module, checkpoint_directory=tmp_path / "checkpoints")
    tmp_path.chmod(0o700)
    assert module.seen == []


def test_a_file_in_the_way_of_the_directory_is_refused_before_training(tmp_path):
    (tmp_path / "checkpoints").write_text("not a directory")
    module = Watched(BUSY, 0.5, None)
    with pytest.raises(TrainingStorageError, match=r"checkpoints' is a file"):
        run(module, checkpoint_directory=tmp_path / "checkpoints")
    assert module.seen == []


class Terminated(Watched):
    """Is told to end in the middle of a step, by a batch system or by Ctrl-C."""

    told_by = signal.SIGTERM

    def on_before_zero_grad(self, optimizer) -> None:
        if self.global_step == self.stop_after:
            os.kill(os.getpid(), self.told_by)


@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("steps", [3, 5, 23], ids=["plain step", "validated step", "last step"])
def test_told_to_end_a_fit_saves_the_step_and_exits(tmp_path, monkeypatch, steps, told_by):
    monkeypatch.setattr(Terminated, "told_by", told_by)
    through = Watched(BUSY, 0.5, None)
    result = run(through, valid=make_source(1))
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    directory = tmp_path / "two"
    rare = replace(BUSY, checkpoint_every=1000)
    with pytest.raises(SystemExit) as caught:
        run(Terminated(rare, 0.5, steps), valid=make_source(1), checkpoint_directory=directory)
    assert caught.value.code == {signal.SIGTERM: 143, signal.SIGINT: 130}[told_by]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    module = Terminated(rare, 0.5, None)
    resumed = run(module, valid=make_source(1), checkpoint_directory=directory)
    assert [step for step, *_ in module.seen] == list(range(steps + 1, 24))
    assert torch.equal(module.weight, through.weight)
    assert resumed.curves.equals(result.curves)


def test_ctrl_c_twice_ends_a_fit_at_once(tmp_path):
    class Impatient(Watched):
        def on_before_zero_grad(self, optimizer) -> None:
            if self.global_step == self.stop_after:
                os.kill(os.getpid(), signal.SIGINT)
                while signal.getsignal(signal.SIGINT) is not before:
                    pass  # two signals that come before either is noticed count as one
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait(10)

    before = signal.default_int_handler
    inherited = signal.signal(signal.SIGINT, before)  # shells let jobs in the background ignore it
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(Impatient(BUSY, 0.5, 3), checkpoint_directory=tmp_path)
        assert files(tmp_path) == ["step-00000002.ckpt"]
        assert signal.getsignal(signal.SIGINT) is before  # which Lightning leaves ignored
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_a_finished_fit_leaves_ctrl_c_as_it_was(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    run(MeanDecoding(BUSY), checkpoint_directory=tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_fit_in_another_thread_leaves_signals_alone(tmp_path):
    module = MeanDecoding(BUSY)
    thread = threading.Thread(target=lambda: run(module, checkpoint_directory=tmp_path))
    thread.start()
    thread.join()
    assert "fitted.ckpt" in files(tmp_path)


def test_other_errors_of_writing_are_not_called_errors_of_the_disk(tmp_path):
    checkpoints = TrainingCheckpoints(tmp_path, {}, 2)
    with pytest.raises(AttributeError, match="local"):
        checkpoints.save_checkpoint({"value": lambda: None}, tmp_path / "step-00000001.ckpt")
    assert files(tmp_path) == []
