"""What several directories hold of one experiment, as one run with tables and a report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from poyo_ssl.comparison.experiment import given_name
from poyo_ssl.comparison.run_directory import (
    CURVES,
    DESCRIPTION,
    ENCODER,
    FIT,
    seconds_of_fits,
    write_facts,
    write_results,
)
from poyo_ssl.comparison.run_plan import RunPlan
from poyo_ssl.file_names import EXPERIMENT, NEURONS
from poyo_ssl.output_directory import alone_in, naming_lost_output
from poyo_ssl.result_files import PRETRAINING_FACTS, ResultsError, read_json
from poyo_ssl.whole_files import partial_file, publish, write_json

_NUM_NAMED = 5  # fits that a message names
_LAST = (*FIT, *ENCODER)


def merge(
    runs: Sequence[str | Path],
    directory: str | Path,
    *,
    command: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Brings runs of one experiment together, and writes its tables and report.

    Recordings and config must be the same; arms, seeds and numbers of labels may differ, and the
    merged run has all of them. What a run did not finish is taken from another that did. No
    recording is read and nothing is fitted.

    Args:
        runs: Directories that ``run`` or its parts wrote.
        directory: Where the merged run goes; it may be one of ``runs``, and what it holds stays.
        command: The command line, for the record.
        on_progress: Called with the encoders and fits that are there and those in all.

    Returns:
        Path of the report.

    Raises:
        ResultsError: If the runs are of different experiments, or fits are missing in all of them,
            or cannot be read.
        OutputError: If another process writes to the directory, or it vanishes or fills up.
    """
    directory = Path(directory)
    here = [directory] if (directory / EXPERIMENT).exists() else []
    sources = list(dict.fromkeys([*here, *map(Path, runs)]))
    run_plan = reduce(add, [RunPlan.load(source) for source in sources])
    given = _require_one_experiment(sources)
    origins = _find_all(run_plan, sources)
    with alone_in(directory):
        if not here:
            for name in DESCRIPTION:
                _copy(sources[0] / name, directory / name)
        stored = read_json(directory / EXPERIMENT, {})
        write_json(directory / EXPERIMENT, stored | {"given": given})
        with naming_lost_output(directory / EXPERIMENT):
            for done, (name, origin) in enumerate(origins.items()):
                on_progress(done, len(origins))
                _copy_whole(origin / name, directory / name)
            on_progress(len(origins), len(origins))
            described = [source for source in sources if (source / NEURONS).is_file()]
            if described and not (directory / NEURONS).exists():
                _copy(described[0] / NEURONS, directory / NEURONS)
            run_plan.save(directory)
            write_results(directory, run_plan)
            write_facts(directory, run_plan, command, seconds_of_fits(directory, run_plan))
            from poyo_ssl.report.page import write_report  # plotly is large, and only for this

            return write_report(directory)


def _require_one_experiment(sources: list[Path]) -> dict[str, str]:
    """Refuses runs that differ; the digests of all encoders that an arm is given, by its name."""
    given: dict[str, str] = {}
    stored = [read_json(source / EXPERIMENT, {"config": dict}) for source in sources]
    for source, other in zip(sources, stored, strict=True):
        own = other.get("given", {})
        different = _differences(stored[0], other)
        changed = [arm for arm in own if given.setdefault(arm, own[arm]) != own[arm]]
        different += [f"the encoder of '{arm}'" for arm in changed]
        if different:
            raise ResultsError(
                f"'{source}' and '{sources[0]}' hold different experiments: they differ in "
                f"{', '.join(different)}. Merge runs of the same recordings and config; only "
                "arms, seeds and numbers of labels may differ."
            )
    return given


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what is not the same; options of the config by their own names."""
    parts = ("config", "given")
    names = [name for name in one if name not in parts and one[name] != other.get(name)]
    mine, theirs = one["config"], other["config"]
    return names + [f"config.{name}" for name in mine if mine[name] != theirs.get(name)]


def _find_all(run_plan: RunPlan, sources: list[Path]) -> dict[str, Path]:
    """Where every encoder and fit lies: its name below a run, and the first run that has it."""
    encoder = (CURVES, PRETRAINING_FACTS, *ENCODER)
    pretrainings = run_plan.pretrainings
    wanted: dict[str, tuple[str, ...]] = {planned.name: encoder for planned in pretrainings}
    wanted |= {
        given_name(planned.made_for): ENCODER for planned in pretrainings if planned.is_given
    }
    wanted |= {fit.name: FIT for fit in run_plan.fits}
    found = {
        name: source
        for name, files in wanted.items()
        for source in reversed(sources)
        if all((source / name / file).is_file() for file in files)
    }
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ResultsError(
            f"{len(missing)} of {len(wanted)} encoders and fits are finished in none of "
            f"{', '.join(map(str, sources))}: {', '.join(missing[:_NUM_NAMED])}"
            f"{' ...' * (len(missing) > _NUM_NAMED)}. Run the same command again to make them; "
            "what is finished is kept."
        )
    return found


def _copy_whole(source: Path, target: Path) -> None:
    """Copies the files of an encoder or a fit; those that tell that it is finished come last."""
    if source == target:
        return
    files = [path for path in source.rglob("[!.]*") if path.is_file()]
    for path in sorted(
        files, key=lambda path: _LAST.index(path.name) if path.name in _LAST else -1
    ):
        _copy(path, target / path.relative_to(source))


def _copy(source: Path, target: Path) -> None:
    with partial_file(target) as partial:
        shutil.copyfile(source, partial)
        publish(partial, target)
