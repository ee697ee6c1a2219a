"""Checkpoints of a fit under way: whole files only, damaged ones set aside, others' refused."""

from __future__ import annotations

import errno
import json
import logging
import pickle
import re
import shutil
import signal
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from poyo_ssl.ending import STOPPED_BY
from poyo_ssl.model.checkpoints import CheckpointError
from poyo_ssl.output_directory import OutputError
from poyo_ssl.whole_files import partial_file, publish, remove_stale_partials

logger = logging.getLogger(__name__)

FITTED = "fitted.ckpt"
"""Weights and curves of a fit that has finished."""
_STEP = re.compile(r"step-(\d{8})\.ckpt")
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, EOFError, LookupError,
    AttributeError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What zipfile and torch raise over files that are not what they should be."""


class TrainingStorageError(OSError):
    """A checkpoint cannot be written or read; the message says which, why and what to do."""


class TrainingCheckpoints(CheckpointIO):
    """The checkpoints of one fit, one file for every step that was kept; Lightning writes here.

    A file gets its name when it is complete and on the disk. Its checksums are compared before
    anything is read from it, and no code in it is executed.

    Args:
        directory: A directory for this fit alone.
        fingerprint: What tells this fit from others, JSON-ready.
        num_kept: Newest checkpoints to keep.
    """

    def __init__(self, directory: Path, fingerprint: dict[str, Any], num_kept: int) -> None:
        self.directory = directory
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.num_kept = num_kept

    def prepare(self) -> None:
        """Makes the directory, tries to write there, and removes what killed writers left.

        Raises:
            TrainingStorageError: If nothing can be written.
        """
        probe = self.directory / "probe"
        try:
            with partial_file(probe) as partial:
                partial.write_bytes(b"may be written")
                partial.unlink()
            remove_stale_partials(self.directory)
        except OutputError as error:
            raise TrainingStorageError(str(error)) from error
        except OSError as error:
            raise TrainingStorageError(_explain_unwritten(self.directory, error)) from error

    def step_file(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.directory / f"step-{step:08d}.ckpt"

    def find_newest(self) -> Path | None:
        """The newest checkpoint that is complete: that of the finished fit, if there is one.

        Damaged files are renamed to ``*.damaged``, with a warning.

        Raises:
            CheckpointError: If it belongs to another fit; the message says what differs.
            TrainingStorageError: If a file cannot be read at all.
        """
        candidates = [self.directory / FITTED, *reversed(self._steps())]
        for path in candidates:
            if not path.is_file():
                continue
            try:
                found = read_checkpoint(path)["fingerprint"]
            except (CheckpointError, KeyError) as error:
                aside = path.replace(path.with_name(path.name + ".damaged"))
                logger.warning(
                    "%s It is set aside as '%s', and an older checkpoint is looked for.",
                    error, aside.name,
                )  # fmt: skip
                continue
            self._refuse_others(path, found)
            return path
        return None

    def _refuse_others(self, path: Path, found: dict[str, Any]) -> None:
        differences = list(_differences(found, self.fingerprint))
        if differences:
            raise CheckpointError(
                f"'{path}' belongs to another fit ({'; '.join(differences[:4])}"
                f"{f'; and {len(differences) - 4} more' if len(differences) > 4 else ''}). Choose "
                f"a new directory, or delete '{self.directory}' to start over."
            )

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint under its final name, complete or not at all, and drops old ones.

        Raises:
            TrainingStorageError: If it cannot be written; what was there before stays.
        """
        path = Path(path)
        try:
            with partial_file(path) as partial:
                with partial.open("wb") as file:
                    torch.save(checkpoint | {"fingerprint": self.fingerprint}, file)
                publish(partial, path)
            for old in self._steps()[: -self.num_kept]:
                old.unlink(missing_ok=True)
        except OutputError as error:
            raise TrainingStorageError(str(error)) from error
        except OSError as error:
            raise TrainingStorageError(_explain_unwritten(path, error)) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """See :func:`read_checkpoint`; the arguments are Lightning's."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint."""
        Path(path).unlink(missing_ok=True)

    def _steps(self) -> list[Path]:
        """The checkpoints of steps, oldest first."""
        return sorted(path for path in self.directory.glob("*.ckpt") if _STEP.fullmatch(path.name))


def is_finished(path: Path) -> bool:
    """Whether a checkpoint holds a finished fit."""
    return path.name == FITTED


def step_of(path: Path) -> int:
    """Steps that the fit of a checkpoint had done."""
    name = _STEP.fullmatch(path.name)
    assert name is not None
    return int(name[1])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU, after comparing its checksums.

    Raises:
        CheckpointError: If it is damaged or holds anything but tensors and plain values.
        TrainingStorageError: If it cannot be read at all.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch.load does not compare them
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of '{damaged}'")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"The checkpoint '{path}' ({path.stat().st_size} bytes) is damaged ({reason})."
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place before the beginning, of a damaged directory
            raise CheckpointError(f"The checkpoint '{path}' is damaged ({error}).") from error
        raise TrainingStorageError(
            f"The checkpoint '{path}' cannot be read ({error}). Allow this user to read it, or "
            "give another directory to start over."
        ) from error
    return content


def _differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """Every value that differs, by its path: what the file holds and what is asked for."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        if found != wanted:
            yield f"{name}: {str(found)[:60]} there, {str(wanted)[:60]} here"
        return
    for key in sorted(found.keys() | wanted.keys()):
        below = f"{name}.{key}" if name else str(key)
        yield from _differences(found.get(key, "nothing"), wanted.get(key, "nothing"), below)


def _explain_unwritten(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**20
    return (
        f"'{path}' cannot be written ({reason}; {free:.0f} MiB are free there). What was written "
        "before is intact: make room or allow writing there and run the same again to resume, or "
        "give another directory to start over."
    )


class WriteCheckpoints(Callback):
    """Writes a checkpoint every so many steps, and when the process is told to end.

    It is told by SIGTERM, as by a batch system, or by SIGINT, as by Ctrl-C; a second SIGINT ends it
    at once.

    Checkpoints hold whole steps, with the validation that follows them. The last step has none,
    but what the finished fit leaves behind.

    Args:
        checkpoints: Where to.
        every: Steps between checkpoints.
        valid_every: Steps between validations; None without any.
        accumulate: Parts of a step in this process.
    """

    def __init__(
        self,
        checkpoints: TrainingCheckpoints,
        *,
        every: int,
        valid_every: int | None,
        accumulate: int,
    ) -> None:
        self.checkpoints = checkpoints
        self.every = every
        self.valid_every = valid_every
        self.accumulate = accumulate
        self.told_by: int | None = None
        self._interrupt: Any = None
        self._random_state: dict[str, Tensor] = {}

    def find_newest(self, trainer: L.Trainer) -> Path | None:
        """What the first process finds in the directory, the same in all processes.

        Raises:
            CheckpointError: If the directory holds another fit.
            TrainingStorageError: If nothing can be written or read there.
        """
        trainer.strategy.setup_environment()  # connects the processes
        newest = None
        if trainer.is_global_zero:
            newest = self.checkpoints.find_newest()
            if newest is None or not is_finished(newest):
                self.checkpoints.prepare()
        found: Path | None = trainer.strategy.broadcast(newest)
        return found

    def finish(self, trainer: L.Trainer, fitted: dict[str, Any]) -> None:
        """Writes what a finished fit leaves behind; ends the process if it was told to end."""
        if trainer.is_global_zero:
            self.checkpoints.save_checkpoint(fitted, self.checkpoints.directory / FITTED)
        if self.told_by is not None:
            raise SystemExit(STOPPED_BY + self.told_by)

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the state of the random numbers, which Lightning does not keep."""
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if module.device.type == "cuda":
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state(module.device)

    def on_load_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remembers it until training starts."""
        self._random_state = checkpoint["random_state"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Resumes where the checkpoint was written, and listens for the signals to end."""
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler of SIGTERM, which it takes away after the fit together with
            # this one, would end the fit without a checkpoint
            signal.signal(signal.SIGTERM, self._note_signal)
            self._interrupt = signal.signal(signal.SIGINT, self._note_signal)
        if not self._random_state:
            return
        # the checkpoint holds whole steps, so there is no batch and no validation to finish, which
        # is what Lightning would try
        trainer.fit_loop.epoch_loop.restarting = False
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        # last of all, since making iterators draws random numbers
        torch.set_rng_state(self._random_state["cpu"])
        if module.device.type == "cuda" and "cuda" in self._random_state:
            torch.cuda.set_rng_state(self._random_state["cuda"], module.device)

    def _note_signal(self, number: int, *_: Any) -> None:
        self.told_by = number
        self._listen_no_more()

    def _listen_no_more(self) -> None:
        """Ctrl-C does again what it did before the fit."""
        if self._interrupt is not None:
            signal.signal(signal.SIGINT, self._interrupt)
            self._interrupt = None

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """After the last step."""
        self._listen_no_more()

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        """Where the fit ends early."""
        self._listen_no_more()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, out: Any, batch: Any, batch_index: int
    ) -> None:
        """After a step that no validation follows."""
        is_whole = (batch_index + 1) % self.accumulate == 0
        if is_whole and (self.valid_every is None or trainer.global_step % self.valid_every):
            self._keep_step(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """After a step and its validation, which may have decided that it was the last one."""
        self._keep_step(trainer)

    def _keep_step(self, trainer: L.Trainer) -> None:
        if trainer.should_stop or trainer.global_step >= trainer.max_steps:
            return
        is_told = self.told_by is not None
        is_end = trainer.strategy.reduce_boolean_decision(is_told, all=False)
        if is_end or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.checkpoints.step_file(trainer.global_step))
        if is_end:
            if trainer.is_global_zero:
                logger.warning(
                    "Told to end: saved after step %d. The same command resumes from there.",
                    trainer.global_step,
                )
            raise SystemExit(STOPPED_BY + (self.told_by or signal.SIGTERM))
