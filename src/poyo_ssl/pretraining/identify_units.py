"""New units' embeddings from unlabelled activity, with the encoder frozen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import torch

from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.training.transfer import EMBEDDINGS, Units
from poyo_ssl.windows.population import MADE_BY, Population


def identify_units(
    encoder: Encoder,
    population: Population,
    config: PretrainingConfig,
    *,
    embeddings: Literal["tracked", "reset", "shuffled"] = "tracked",
    seed: int = 0,
    checkpoint_directory: Path | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> Encoder:
    """Learns who new units are from unlabelled activity of the training part.

    The encoder is frozen, but for the embeddings of units that it does not know: they learn by
    the pretraining objective, beside what that objective has of its own.

    Args:
        encoder: A pretrained encoder, which is copied and not changed.
        population: The recordings and their units; known ones are read, too.
        config: Objective and training.
        embeddings: What becomes of those of known units; see ``FinetuningConfig``.
        seed: Seed of new embeddings, masks and batches.
        checkpoint_directory: Where the fit can be resumed from; None keeps no checkpoints.
        log_directory: Where the logger writes curves while it runs; None writes none.
        show_progress: Draw a progress bar.

    Returns:
        An encoder that knows every unit of the population, with its learning curves in ``fit``.

    Raises:
        ValueError: If the objective learns from labels, or the encoder places units.
    """
    require_kind(population, Population, MADE_BY)
    if config.label_weight:
        raise ValueError(
            "Units are identified from unlabelled activity, but identification.label_weight is "
            f"{config.label_weight}. Set it to 0; fine-tuning learns from the labels."
        )
    if not isinstance(encoder, Encoder):
        raise TypeError(
            f"encoder must be a pretrained Encoder, got {encoder!r:.80}. Load a saved one with "
            "load_encoder."
        )
    if encoder.placement is not None:
        raise ValueError(
            "The encoder places new units by their response to "
            f"{encoder.placement.shared.stimulus}: nothing is left to identify. Leave out "
            "identify."
        )
    torch.manual_seed(seed)
    encoder = copy.deepcopy(encoder)
    is_known = EMBEDDINGS[embeddings](encoder, population.unit_ids, seed)
    return pretrain(
        population,
        config,
        encoder=encoder,
        rates=Units().rates(encoder, is_known),
        seed=seed,
        checkpoint_directory=checkpoint_directory,
        log_directory=log_directory,
        show_progress=show_progress,
    )
