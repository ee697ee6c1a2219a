"""Several values of options, each combination of which is a run of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.plan import MAY_CHANGE
from poyo_ssl.file_names import file_name
from poyo_ssl.whole_files import write_csv

MOST_RUNS = 100
"""Combinations of a sweep: more are a mistake sooner than a plan."""
TABLE = "sweep.csv"
"""In a sweep's directory: the summaries of all runs."""

Value = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A run with every combination of some values of some options."""

    config: RunConfig
    """All other options."""
    options: Mapping[str, Sequence[Value]]
    """Names of options, such as ``encoder.dim``, to the values that each takes in turn."""

    def __post_init__(self) -> None:
        for option, values in self.options.items():
            _require_values(option, values)
        num_runs = math.prod(map(len, self.options.values()))
        if num_runs > MOST_RUNS:
            raise ValueError(
                f"The sweep has {num_runs} combinations ({', '.join(self.options)}), and may have "
                f"{MOST_RUNS}. Give fewer values, or sweep one option after the other."
            )

    @property
    def titles(self) -> dict[str, str]:
        """Options to their shortest names that tell them apart: ``encoder.dim`` is ``dim``."""
        return {option: _shortest(option, self.options) for option in self.options}

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Every combination, by option; the last option changes first."""
        for values in product(*self.options.values()):
            yield dict(zip(self.options, values, strict=True))

    def name(self, combination: Mapping[str, Value]) -> str:
        """What a combination is called, such as ``dim=32, depth=2``."""
        return ", ".join(self._parts(combination))

    def folder(self, combination: Mapping[str, Value]) -> str:
        """The directory of a combination's run, below that of the sweep."""
        return file_name(*self._parts(combination))

    def _parts(self, combination: Mapping[str, Value]) -> list[str]:
        return [f"{self.titles[option]}={_text(value)}" for option, value in combination.items()]

    def config_of(self, combination: Mapping[str, Value]) -> RunConfig:
        """The options of a combination's run.

        Raises:
            ValueError: If there is no such option, or values do not go together.
        """
        config = reduce(lambda c, item: _replaced(c, *item), combination.items(), self.config)
        return replace(config, title=f"{config.title} ({self.name(combination)})")

    def runs(self, directory: Path) -> dict[Path, RunConfig]:
        """Directory and options of every run.

        Raises:
            ValueError: If a combination is none of a run; all that are not are named.
        """
        configs, problems = {}, []
        for combination in self.combinations():
            try:
                configs[directory / self.folder(combination)] = self.config_of(combination)
            except ValueError as error:
                problems.append(f"{self.name(combination)}: {error}")
        if problems:
            raise ValueError(f"Of the sweep cannot be run: {' '.join(problems)}")
        return configs

    def write_table(self, directory: Path) -> pd.DataFrame:
        """Gathers the summaries of all runs in ``sweep.csv``, under the names of the options."""
        tables = []
        for combination in self.combinations():
            table = pd.read_csv(directory / self.folder(combination) / "summary.csv")
            for place, (option, value) in enumerate(combination.items()):
                table.insert(place, option, _text(value) if value is None else value)
            tables.append(table)
        whole = pd.concat(tables, ignore_index=True)
        write_csv(directory / TABLE, whole)
        return whole


def _require_values(option: str, values: Sequence[Value]) -> None:
    if option in MAY_CHANGE:
        raise ValueError(f"{option} changes no fit, so it cannot be swept. Give one value.")
    if not values:
        raise ValueError(f"The sweep over {option} has no value. Give at least one.")
    if any(isinstance(value, list | tuple | dict) for value in values):
        raise ValueError(
            f"A sweep is over single values, and {option} has lists or groups among them: {values}."
        )
    if len(set(map(_text, values))) < len(values):
        raise ValueError(f"The sweep over {option} names a value twice: {values}.")


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shortest(option: str, options: Mapping[str, Any]) -> str:
    parts = option.split(".")
    endings = [".".join(parts[first:]) for first in reversed(range(len(parts)))]
    others = [f".{other}" for other in options if other != option]
    return next(e for e in endings if not any(o.endswith(f".{e}") for o in others))


def _replaced(config: Any, option: str, value: Value) -> Any:
    """A config, or a part of one, with another value of an option."""
    name, _, rest = option.partition(".")
    if isinstance(config, Mapping) and name in config:
        return {**config, name: _replaced(config[name], rest, value) if rest else value}
    if not is_dataclass(config) or name not in {field.name for field in fields(config)}:
        raise ValueError(f"{type(config).__name__} has no option '{name}'.")
    new = _replaced(getattr(config, name), rest, value) if rest else value
    return replace(config, **{name: new})  # type: ignore[type-var]
