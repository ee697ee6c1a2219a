"""Where weights come from: the recordings that they were learned from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from poyo_ssl.model.fit import Fit
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.simulator import SIMULATED_BY


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What weights were learned from, as far as the recordings say it."""

    recordings: tuple[str, ...]
    """Their ids."""
    animals: tuple[str, ...]
    """Their subjects, each once; those that recordings name."""
    is_simulated: bool
    """Whether any of them is simulated."""
    step: int | None = None
    """Of the training, whose weights were kept; None where nothing was trained."""
    seconds: float | None = None
    """That training took."""

    @classmethod
    def of(cls, recordings: Iterable[Recording], fit: Fit | None) -> Self:
        """That of a fit on recordings."""
        recordings = list(recordings)
        return cls(
            recordings=tuple(r.recording_id for r in recordings),
            animals=tuple(dict.fromkeys(r.subject_id for r in recordings if r.subject_id)),
            is_simulated=any((r.source or "").startswith(SIMULATED_BY) for r in recordings),
            step=None if fit is None else fit.best_step,
            seconds=None if fit is None else fit.seconds,
        )

    @classmethod
    def read(cls, settings: Mapping[str, Any] | None) -> Self | None:
        """The one that a config holds as a dict; None for none."""
        if settings is None:
            return None
        names = {name: tuple(map(str, settings[name])) for name in ("recordings", "animals")}
        return cls(**{**settings, **names})
