"""A look-up of movie frames in a space that animals share, for units that were placed there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np

from poyo_ssl.alignment.shared_response import Loadings
from poyo_ssl.decoders.frame_templates import FrameTemplates


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedTemplates(FrameTemplates):
    """Templates whose units are dimensions of a shared space, and what turns units to them."""

    placed_ids: list[str]
    """Units of the recordings that are looked up."""
    loadings: np.ndarray
    """(num_placed, num_dimensions), with the scale of their recording."""
    rest: np.ndarray
    """Mean activity that counts as zero, (num_placed,)."""
    SETTINGS: ClassVar[tuple[str, ...]] = (*FrameTemplates.SETTINGS, "placed_ids")
    ARRAYS: ClassVar[tuple[str, ...]] = (*FrameTemplates.ARRAYS, "loadings", "rest")

    @classmethod
    def of_units(cls, templates: FrameTemplates, loadings: Loadings) -> Self:
        """Templates of a space for the units of one recording."""
        known = {f.name: getattr(templates, f.name) for f in fields(templates) if f.init}
        return cls(
            **{**known, "_known": {}},
            placed_ids=loadings.unit_ids,
            loadings=(loadings.scale * loadings.weights).astype(np.float32),
            rest=loadings.center.astype(np.float32),
        )

    def _similarity(self, features: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        position = {unit_id: i for i, unit_id in enumerate(self.placed_ids)}
        columns = [position[unit_id] for unit_id in unit_ids]
        by_bin = features.reshape(-1, len(columns)) - self.rest[columns]
        num_features = self.num_bins * self.loadings.shape[1]
        projected = (by_bin @ self.loadings[columns]).reshape(-1, num_features)
        return super()._similarity(projected, self.unit_ids)

    @classmethod
    def merge(cls, templates: Sequence[Self]) -> Self:
        """Merges templates of several recordings; a unit in several gets its mean loadings."""
        ids = [unit_id for t in templates for unit_id in t.placed_ids]
        placed_ids = list(dict.fromkeys(ids))
        rows = np.array([placed_ids.index(unit_id) for unit_id in ids])

        def average(values: np.ndarray) -> np.ndarray:
            total = np.zeros((len(placed_ids), *values.shape[1:]), dtype=np.float32)
            np.add.at(total, rows, values)
            counts = np.bincount(rows).reshape(-1, *(1,) * (values.ndim - 1))
            return (total / counts).astype(np.float32)

        return replace(
            templates[0],
            _known={},
            placed_ids=placed_ids,
            loadings=average(np.concatenate([t.loadings for t in templates])),
            rest=average(np.concatenate([t.rest for t in templates])),
        )
