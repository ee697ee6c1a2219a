"""Several networks trained in one pass, each as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.training_batches import Place, TrainingSteps, WindowBatch

SEED_STEP = 1_000
"""Between the seeds of members, so that they are not those of other fits of a run."""


def member_seeds(seed: int, num_members: int) -> list[int]:
    """Seeds of an ensemble's members; the first one's is that of the ensemble."""
    return [seed + SEED_STEP * member for member in range(num_members)]


class MemberSteps(IterableDataset[list[list[WindowBatch]]]):
    """The steps of every member side by side."""

    def __init__(self, members: Sequence[TrainingSteps]) -> None:
        self.members = members

    def step(self, step: int, part: int = 0, num_parts: int = 1) -> list[list[WindowBatch]]:
        """One part of one step of each member."""
        return [member.step(step, part, num_parts) for member in self.members]

    def to(self, place: Place) -> MemberSteps:
        """The same steps of activity that lies elsewhere."""
        return MemberSteps([member.to(place) for member in self.members])

    def describe(self) -> dict[str, Any]:
        """Every member's."""
        return {f"member {i}": member.describe() for i, member in enumerate(self.members)}

    def __iter__(self) -> Iterator[list[list[WindowBatch]]]:
        yield from map(self.step, count())


class Members(WindowModule):
    """Modules that share optimiser, schedule and validation windows, and nothing else.

    Each has its own weights, batches, random numbers, clipped gradient and best validation, and
    no longer learns once its own validation has stopped improving: together they become what
    they would have become one by one.

    Args:
        members: Of one config.
        seeds: Of what is random in each.
    """

    def __init__(self, members: Sequence[WindowModule], seeds: Sequence[int]) -> None:
        super().__init__(nn.Module(), members[0].training_config)
        self.config = members[0].config
        self.seeds = list(seeds)
        self._entropy: tuple[int, ...] = ()
        for index, member in enumerate(members):
            setattr(self, _name(index), member)  # Lightning finds modules among the attributes

    @property
    def members(self) -> list[WindowModule]:
        """Every member."""
        return [getattr(self, _name(index)) for index in range(len(self.seeds))]

    @property
    def validated_apart(self) -> dict[str, str]:
        """Every member's prefix to its own validation loss."""
        return {f"{_name(i)}.": f"{_name(i)}/loss" for i in range(len(self.seeds))}

    def draw_from(self, seed: int, *entropy: int) -> None:
        """Remembers the step and part, from which every member draws with its own seed."""
        self._entropy = entropy

    def losses(self, batch: list[list[WindowBatch]]) -> dict[str, Tensor]:  # type: ignore[override]
        """The sum of the members' losses, and the mean of every other term."""
        terms = []
        for index, (member, mine) in enumerate(zip(self.members, batch, strict=True)):
            if f"{_name(index)}." not in self.finished:
                member.draw_from(self.seeds[index], *self._entropy)
                terms.append(member.losses(mine))
        total = torch.stack([own["loss"] for own in terms]).sum()
        return {name: _mean(terms, name) for name in terms[0]} | {"sum": total}

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """One step of every member that still learns."""
        terms = self.losses(batch)
        total = terms.pop("sum")
        self.log_training(terms)
        return total

    def validation_step(self, batch: list[WindowBatch], batch_index: int) -> None:
        """The same windows for all."""
        terms = [member.losses(batch) for member in self.members]
        self.log_validation(batch, {f"valid/{name}": _mean(terms, name) for name in terms[0]})
        own = zip(self.validated_apart.values(), terms, strict=True)
        self.log_validation(batch, {name: of_member["loss"] for name, of_member in own})

    def learning_rate_factors(self) -> dict[str, float]:
        """Those of every member."""
        return {
            f"{_name(index)}.{name}": factor
            for index, member in enumerate(self.members)
            for name, factor in member.learning_rate_factors().items()
        }

    def trainable_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Those of every member."""
        return [
            (f"{_name(index)}.{name}", parameter)
            for index, member in enumerate(self.members)
            for name, parameter in member.trainable_parameters()
        ]

    def clip_gradients_to(self, largest_norm: float) -> None:
        """Clips the gradient of every member by itself."""
        for member in self.members:
            member.clip_gradients_to(largest_norm)

    def before_step(self) -> None:
        """Every member's."""
        for member in self.members:
            member.before_step()

    def after_step(self) -> None:
        """Every member's."""
        for member in self.members:
            member.after_step()


def _name(index: int) -> str:
    return f"member{index}"


def _mean(terms: list[dict[str, Tensor]], name: str) -> Tensor:
    return torch.stack([own[name].detach() for own in terms]).mean()
