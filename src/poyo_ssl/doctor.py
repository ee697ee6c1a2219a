"""What ``poyo-ssl doctor`` finds: versions, devices, room on the disk, and whether a fit works."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from packaging.requirements import Requirement

from poyo_ssl.extras import EXTRAS
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.recording import Recording

ENOUGH_DISK = 2**30
"""Bytes that a run and its checkpoints have room in."""
SELF_TEST_STEPS = 40


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    found: str
    problem: str = ""
    """What is wrong and what to do; empty where all is well."""

    @property
    def text(self) -> str:
        """What was found, and below it what is wrong."""
        return f"{self.found}\n! {self.problem}" if self.problem else self.found


def examine(*, with_self_test: bool = True) -> list[Check]:
    """Looks at everything that a run needs.

    Args:
        with_self_test: Fit a small decoder, too; takes seconds to a minute.
    """
    checks = [
        Check("poyo-ssl", version("poyo-ssl")),
        Check("Python", f"{platform.python_version()}, {platform.platform()}"),
        _check_packages(),
        *_check_extras(),
        Check("devices", ", ".join(_devices())),
        Check("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        _check_disk(Path.cwd()),
        _check_disk(Path(tempfile.gettempdir())),
    ]
    return [*checks, _check_fit()] if with_self_test else checks


def require_health(checks: list[Check]) -> None:
    """Refuses to go on where something is wrong.

    Raises:
        ValueError: If any check found a problem; all are said.
    """
    problems = [f"{check.name}: {check.problem}" for check in checks if check.problem]
    if problems:
        raise ValueError(
            "\n- ".join([f"{len(problems)} of {len(checks)} checks failed:", *problems])
        )


def _requirements(extra: str = "") -> list[Requirement]:
    """What the package needs, or what an extra adds to that, on this machine."""
    found = [Requirement(text) for text in requires("poyo-ssl") or ()]
    return [
        needed
        for needed in found
        if (needed.marker is None and not extra)
        or (needed.marker is not None and _is_meant(needed, extra))
    ]


def _is_meant(needed: Requirement, extra: str) -> bool:
    assert needed.marker is not None
    is_of_extra = "extra ==" in str(needed.marker)
    return is_of_extra == bool(extra) and needed.marker.evaluate({"extra": extra})


def _describe(needed: Requirement) -> tuple[str, str]:
    """Name and version of a package, and what is wrong with it."""
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} missing", f"{needed.name} is missing"
    text = f"{needed.name} {found}"
    is_right = needed.specifier.contains(found, prereleases=True)
    return text, "" if is_right else f"{text} is not {needed.specifier}"


def _check_packages() -> Check:
    described = [_describe(needed) for needed in _requirements()]
    wrong = [problem for _, problem in described if problem]
    problem = f"{'; '.join(wrong)}. Run: pip install --upgrade poyo-ssl" if wrong else ""
    return Check("packages", ", ".join(text for text, _ in described), problem)


def _check_extras() -> Iterator[Check]:
    """An extra that is missing is no problem, one that is too old is."""
    for extra, purpose in EXTRAS.items():
        described = [_describe(needed) for needed in _requirements(extra)]
        if not described:  # an installation of before the extra
            continue
        install = f'pip install --upgrade "poyo-ssl[{extra}]"'
        is_missing = any(text.endswith(" missing") for text, _ in described)
        wrong = [problem for _, problem in described if problem and not is_missing]
        found = f"not installed ({install})" if is_missing else ", ".join(t for t, _ in described)
        problem = f"{'; '.join(wrong)}. Run: {install}" if wrong else ""
        yield Check(f"extra {extra}", f"{found}: {purpose}", problem)


def _devices() -> Iterator[str]:
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f"{device.name} ({device.total_memory / 2**30:.0f} GiB)"
    if torch.backends.mps.is_available():
        yield "Apple GPU (mps)"
    yield f"CPU ({platform.machine()})"


def _check_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    problem = "" if free >= ENOUGH_DISK else "A run needs 1 GiB. Make room, or use another folder."
    return Check(f"free in {folder}", f"{free / 2**30:.1f} GiB", problem)


def _check_fit() -> Check:
    started = time.perf_counter()
    try:
        accuracy, chance = fit_small_decoder()
    except Exception as error:  # whatever it is, it is what a run would end with
        found = f"failed after {time.perf_counter() - started:.0f} s"
        problem = f"{type(error).__name__}: {error}"
        return Check("self-test", found, f"{problem} Send this to the developers.")
    found = f"a small decoder has accuracy {accuracy:.2f} (chance {chance:.3f}) after "
    found += f"{time.perf_counter() - started:.0f} s"
    problem = "" if accuracy > chance else "It learned nothing. Send this to the developers."
    return Check("self-test", found, problem)


def fit_small_decoder() -> tuple[float, float]:
    """Invents a session of tuned units, fits a small network to it, saves, loads and scores it.

    Returns:
        Accuracy on the test part, and that of guessing.
    """
    import poyo_ssl as ps

    divided = ps.divide([_invent_session()], "direction")
    population = ps.Population(
        divided, {d.recording.recording_id: list(d.recording.unit_ids) for d in divided}
    )
    training = ps.TrainingConfig(max_steps=SELF_TEST_STEPS, valid_every=SELF_TEST_STEPS, lr=0.01)
    config = ps.FinetuningConfig(training=training, members=1)
    decoder = ps.finetune(population, "direction", ps.EncoderConfig(dim=32), config)
    with tempfile.TemporaryDirectory() as folder:
        decoder.save(folder)
        scores = ps.evaluate(ps.load_decoder(folder), divided)
    [evaluation] = scores.evaluations
    assert evaluation.chance is not None
    return evaluation.scores["accuracy"], evaluation.chance


def _invent_session() -> Recording:
    """160 gratings of four directions at 10 Hz, and twenty units that prefer one each."""
    rng = np.random.default_rng(0)
    starts = 1.0 + 3.0 * np.arange(160)
    directions = 90.0 * rng.integers(0, 4, len(starts))
    df_over_f = rng.normal(size=(4900, 20)).astype(np.float32)
    for start, direction in zip(starts, directions, strict=True):
        first = round(10 * start)
        df_over_f[first : first + 20, int(direction // 90) :: 4] += 2.0
    table = pd.DataFrame({"start": starts, "end": starts + 2.0, "orientation": directions})
    return recording_from_arrays(
        df_over_f,
        recording_id="self-test",
        sampling_rate=10.0,
        stimuli={"drifting_gratings": table},
    )
