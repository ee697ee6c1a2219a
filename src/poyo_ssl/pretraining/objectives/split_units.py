"""Two halves of the units see the same windows, and must say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.losses import barlow_twins_loss, cross_correlation
from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.windows.activity import Windows
from poyo_ssl.windows.training_batches import WindowBatch

FEWEST_CORRELATED = 64
"""Windows over which features must be correlated: chance correlations of 128 features over fewer
outweigh what the halves share."""
OFF_DIAGONAL_WEIGHT = 0.02
"""Weight of a correlation between two features beside that of a feature with itself. Zbontar et
al. take 0.005 for 8192 features."""

if TYPE_CHECKING:
    from poyo_ssl.pretraining.config import PretrainingConfig


@dataclass(frozen=True, kw_only=True)
class SplitUnitsConfig:
    """What the halves of the units do not see."""

    remove_modes: int = 0
    """Leading principal components of every recording's training activity that are left out of
    what the encoder reads. Without one, it learns the gain that all units share and little else."""

    def __post_init__(self) -> None:
        if self.remove_modes < 0:
            raise ValueError(
                f"split_units: remove_modes must not be negative, got {self.remove_modes}."
            )


class SplitUnitsNetwork(nn.Module):
    """Encoder, and a linear projection of the mean latents to the features that are compared."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Linear(encoder.config.dim, 2 * encoder.config.dim)

    def forward(self, groups: list[Windows]) -> tuple[Tensor, Tensor]:
        """Windows -> features (B, 2 * D), centred in each recording, and latents (B, L, D).

        Centred, because features that only tell recordings apart would be alike for both halves.
        """
        latents = self.encoder.encode_groups(groups)
        features = self.projection(latents.mean(1))
        parts = features.split([len(group.activity) for group in groups])
        return torch.cat([part - part.mean(0) for part in parts]), latents


class SplitUnits(Objective):
    """Features of two random, disjoint halves of the units agree, and differ from each other.

    Barlow twins, with the halves as the two views. The correlations are those of the windows that
    are processed together: a part of a step where steps are divided. ``agreement`` is the mean
    correlation of a feature with itself.

    The halves share the population's gain, too, and recognise a window by it without any knowledge
    of the stimulus: set ``remove_modes``. Fine-tuning then reads activity that has the modes.

    Args:
        encoder: What is pretrained.
        config: Modes to remove, labels and training.
        seed: Seed of the halves.
        num_classes: Answers of the label task; 0 uses no labels.

    References:
        Zbontar et al., ICML 2021 (Barlow twins).
    """

    network: SplitUnitsNetwork

    @classmethod
    def problems(cls, config: PretrainingConfig) -> list[str]:
        """Batches that are too small to correlate features over."""
        per_stream = config.training.batch_size // len(cls.streams(config.label_weight))
        num_correlated = per_stream // config.training.accumulate
        if num_correlated >= FEWEST_CORRELATED:
            return []
        return [
            f"split_units correlates features over the {num_correlated} unlabelled windows "
            f"that are processed together and needs {FEWEST_CORRELATED}: raise "
            "training.batch_size or lower training.accumulate"
        ]

    def __init__(
        self, encoder: Encoder, config: PretrainingConfig, seed: int, num_classes: int
    ) -> None:
        super().__init__(SplitUnitsNetwork(encoder), config, seed, num_classes)
        self.options = config.split_units

    @property
    def num_removed_modes(self) -> int:
        """Modes that are not read."""
        return self.options.remove_modes

    def self_supervised(self, groups: list[WindowBatch]) -> tuple[dict[str, Tensor], Tensor]:
        """``loss`` and ``agreement``; latents of both halves."""
        halves = [split_units(group, self.generator()) for group in self.shown(groups)]
        one, latents = self.network([first for first, _ in halves])
        other, other_latents = self.network([second for _, second in halves])
        correlation = cross_correlation(one, other)
        terms = {
            "loss": barlow_twins_loss(correlation, OFF_DIAGONAL_WEIGHT),
            "agreement": correlation.diagonal().mean(),
        }
        return terms, torch.cat([latents, other_latents])

    def shown(self, groups: list[WindowBatch]) -> list[Windows]:
        """The activity without the modes, and whose it is."""
        if self.modes is None:
            return super().shown(groups)
        return [Windows(self.modes.remove(group), group.unit_index) for group in groups]


def split_units(windows: Windows, generator: torch.Generator) -> tuple[Windows, Windows]:
    """Two disjoint random halves of the units of the same windows; a lone unit is in both.

    Args:
        windows: Windows of one recording.
        generator: Decides the draw.
    """
    activity, units = windows
    order = torch.randperm(len(units), generator=generator).to(units.device)
    num_first = len(units) // 2
    first, second = order[: max(1, num_first)], order[num_first:]
    one = Windows(activity[..., first], units[first])
    return one, Windows(activity[..., second], units[second])
