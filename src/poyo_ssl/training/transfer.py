"""Ways to transfer: what of a pretrained encoder keeps learning, how fast, and whose embeddings.

A way gives every weight of the encoder a learning rate relative to that of the decoder, whose
query and readout are always new. A rate of 0 freezes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.recordings.recording import RecordingError, is_one_rate

UNITS = "unit_embedding.weight"
_PROCESS = "process_layers."


class TransferError(ValueError):
    """A pretrained encoder that cannot be transferred as asked; the message says what to do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningRates:
    """How fast the parts of an encoder learn, relative to the decoder; 0 freezes."""

    parameters: dict[str, float]
    """Name of every parameter but the unit embedding."""
    units: Tensor
    """Every row of the unit embedding, (num_rows,)."""

    def freeze(self, encoder: Encoder) -> None:
        """Keeps what has a rate of 0 from learning; an encoder without any other has no dropout."""
        for name, rate in self.parameters.items():
            encoder.get_parameter(name).requires_grad_(rate > 0)
        if not any(self.parameters.values()):
            encoder.eval()
        weight, is_frozen = encoder.unit_embedding.weight, self.units[:, None] == 0
        weight.requires_grad_(not is_frozen.all())
        if weight.requires_grad:
            weight.register_hook(lambda g: g.masked_fill(is_frozen.to(g.device), 0.0))


class Transfer(Protocol):
    """A way to transfer."""

    def rates(self, encoder: Encoder, is_known: Tensor) -> LearningRates:
        """How fast the encoder learns.

        Args:
            encoder: Knows every unit that is read.
            is_known: Whether each row of the unit embedding was there before, (num_rows,).
        """
        ...


@dataclass(frozen=True)
class Full:
    """``full``: everything learns at the full rate."""

    def rates(self, encoder: Encoder, is_known: Tensor) -> LearningRates:
        """1 for everything."""
        return full_rates(encoder)


@dataclass(frozen=True)
class Layerwise:
    """``layerwise``: the further from the answer, the slower.

    The last process layer learns at the rate ``decay``, the one before at its square and so on;
    what reads the windows is one further: the reading attention with its feed-forward network, the
    latents, the value map, and the embeddings of units that the encoder knows. Those of new units
    learn at the full rate.
    """

    decay: float = 0.5
    """Learning rate of a layer relative to the next one."""

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"layer_decay must lie in (0, 1], got {self.decay}.")

    def rates(self, encoder: Encoder, is_known: Tensor) -> LearningRates:
        """Powers of the decay."""
        num_layers = len(encoder.process_layers)
        reading = self.decay ** (num_layers + 1)
        rates = _uniform(encoder, reading)
        for name in rates:
            if name.startswith(_PROCESS):
                index = int(name.removeprefix(_PROCESS).split(".")[0])
                rates[name] = self.decay ** (num_layers - index)
        return LearningRates(parameters=rates, units=torch.where(is_known, reading, 1.0))


@dataclass(frozen=True)
class Units:
    """``units``: of the encoder, only the embeddings of new units learn."""

    def rates(self, encoder: Encoder, is_known: Tensor) -> LearningRates:
        """1 for new units, 0 for the rest."""
        return LearningRates(parameters=_uniform(encoder, 0.0), units=(~is_known).float())


@dataclass(frozen=True)
class Weights:
    """``weights``: everything learns but the embeddings of units that the encoder knows.

    For embeddings that say where a unit lies in a space that animals share: what is learned holds
    for units that are placed later.
    """

    def rates(self, encoder: Encoder, is_known: Tensor) -> LearningRates:
        """0 for known units, 1 for the rest."""
        return LearningRates(parameters=_uniform(encoder, 1.0), units=(~is_known).float())


@dataclass(frozen=True)
class Probe:
    """``probe``: nothing of the encoder learns."""

    def rates(self, encoder: Encoder, is_known: Tensor) -> LearningRates:
        """0 for everything.

        Raises:
            TransferError: If some unit is new, since its embedding would stay random.
        """
        num_new = int((~is_known).sum())
        if num_new:
            raise TransferError(
                f"transfer: probe learns no embeddings, but {num_new} units are new to the encoder "
                "and would keep random ones. Identify them first (identify_units, or "
                "identify of adapt), choose units that the encoder knows, or take transfer: "
                "units."
            )
        return LearningRates(parameters=_uniform(encoder, 0.0), units=torch.zeros(len(is_known)))


TRANSFERS: dict[str, Callable[[], Transfer]] = {
    "full": Full,
    "layerwise": Layerwise,
    "units": Units,
    "weights": Weights,
    "probe": Probe,
}
"""Name of a way to transfer to its class."""


def prepare_encoder(encoder: Encoder | EncoderConfig, sampling_rate: float) -> Encoder:
    """What learning starts from: a fresh encoder, or a copy of a pretrained one.

    Args:
        encoder: The config of a fresh encoder, or the encoder that is copied.
        sampling_rate: Imaging rate of the recordings to learn from, Hz.

    Raises:
        RecordingError: If the encoder was pretrained at another imaging rate.
    """
    if isinstance(encoder, EncoderConfig):
        return Encoder(encoder, sampling_rate)
    if not is_one_rate(encoder.sampling_rate, sampling_rate):
        raise RecordingError(
            f"The encoder was pretrained at {encoder.sampling_rate:.2f} Hz, the recordings are "
            f"sampled at {sampling_rate:.2f} Hz. Pretrain at that rate, give a config to start a "
            "fresh encoder from, or resample the recordings."
        )
    return copy.deepcopy(encoder).train()


def full_rates(encoder: Encoder) -> LearningRates:
    """The full rate for everything, as of a fresh encoder."""
    num_rows = len(encoder.unit_embedding.weight)
    return LearningRates(parameters=_uniform(encoder, 1.0), units=torch.ones(num_rows))


def _uniform(encoder: Encoder, rate: float) -> dict[str, float]:
    return {name: rate for name, _ in encoder.named_parameters() if name != UNITS}


def keep_embeddings(encoder: Encoder, unit_ids: list[str], seed: int) -> Tensor:
    """``tracked``: units that the encoder knows keep their embeddings, the others get new ones.

    Args:
        encoder: Changed in place.
        unit_ids: Units to be decoded from.
        seed: Seed of an exchange; new embeddings are drawn from torch's generator, as everywhere.

    Returns:
        Whether each row of the unit embedding is known, (num_rows,).
    """
    num_known_rows = len(encoder.unit_embedding.weight)
    encoder.add_units(unit_ids)
    return torch.arange(len(encoder.unit_embedding.weight)) < num_known_rows


def reset_embeddings(encoder: Encoder, unit_ids: list[str], seed: int) -> Tensor:
    """``reset``: every unit gets a new embedding, so that only weights transfer.

    Arguments and result are those of :func:`keep_embeddings`.
    """
    encoder.add_units(unit_ids)
    encoder.unit_embedding.subset_vocab(unit_ids)
    encoder.unit_embedding.reset_parameters()
    # the first row is padding, which no unit has
    return torch.arange(len(encoder.unit_embedding.weight)) == 0


def shuffle_embeddings(encoder: Encoder, unit_ids: list[str], seed: int) -> Tensor:
    """``shuffled``: every known unit gets the embedding of another one; the control of ``tracked``.

    Arguments and result are those of :func:`keep_embeddings`; the seed decides whose.

    Raises:
        TransferError: If fewer than two units are known.
    """
    known = known_units(encoder, unit_ids)
    if len(known) < 2:
        raise TransferError(
            "embeddings: shuffled exchanges the embeddings of known units, but the encoder knows "
            f"{len(known)} of {len(unit_ids)} units. Take recordings of the cells that it was "
            "pretrained on, or embeddings: tracked."
        )
    is_known = keep_embeddings(encoder, unit_ids, seed)
    rows = torch.tensor(encoder.unit_embedding.tokenizer(known))
    # one cycle through all of them in random order: none keeps its own
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    with torch.no_grad():
        weight = encoder.unit_embedding.weight
        weight[rows] = weight[rows.roll(1)]
    return is_known


EMBEDDINGS: dict[str, Callable[[Encoder, list[str], int], Tensor]] = {
    "tracked": keep_embeddings,
    "reset": reset_embeddings,
    "shuffled": shuffle_embeddings,
}
"""What becomes of the embeddings of known units to the function that does it."""


def known_units(encoder: Encoder, unit_ids: list[str]) -> list[str]:
    """Those units that have an embedding, in their order."""
    return [unit_id for unit_id in unit_ids if unit_id in encoder.unit_embedding.vocab]
