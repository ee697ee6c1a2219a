"""Loading of fitted decoders of every kind.

A kind is known once its module is imported: name the module of a new one here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poyo_ssl.decoders import (
    calcium_poyo_plus,
    frame_decoders,
    network,
    reference_decoders,
    value_decoders,
)
from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Origin, Question
from poyo_ssl.model.checkpoint_files import NOT_AS_WRITTEN
from poyo_ssl.model.checkpoints import CheckpointError, load_checkpoint
from poyo_ssl.model.provenance import Provenance
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.tasks import Task

MODULES = (calcium_poyo_plus, frame_decoders, network, reference_decoders, value_decoders)
"""Where the kinds of decoders are defined."""


def load_decoder(directory: str | Path) -> FittedDecoder:
    """Loads what :meth:`FittedDecoder.save` wrote; nothing in the files is executed.

    Raises:
        CheckpointError: If the directory holds no complete checkpoint of a fitted decoder.
    """
    tensors, settings = load_checkpoint(directory)
    try:
        kind = FittedDecoder.kinds.get(_kind_of(settings))
        if kind is None:
            raise CheckpointError(
                f"'{directory}' holds no fitted decoder but '{settings.get('kind')}'. "
                "Give a directory that 'poyo-ssl finetune' or 'run' of this version wrote."
            )
        decoder = kind.of(Question.of(settings, tensors), settings, tensors)
        decoder.origin = Origin.read(settings.get("origin", {}))
        decoder.provenance = Provenance.read(settings.get("provenance"))
        _answer_silence(decoder)
        return decoder
    except CheckpointError:
        raise
    except NOT_AS_WRITTEN as error:
        raise CheckpointError(
            f"The checkpoint in '{directory}' does not load ({error!r}). It was changed after it "
            "was written, or written by another version: fit the decoder again."
        ) from error


def _kind_of(settings: Mapping[str, Any]) -> str:
    """The kind of a saved decoder; networks of labels, frames and pictures once were one."""
    kind = str(settings.get("kind"))
    if kind != "network" or "task" not in settings:
        return kind
    answer = Task.of(settings["task"]).answer
    if answer.needs_pictures:
        return network.PictureNetwork.KIND
    return (network.FrameNetwork if answer.is_about_frames else network.ClassNetwork).KIND


def _answer_silence(decoder: FittedDecoder) -> None:
    """Asks about one window without activity, which shows whether all parts fit together."""
    question = decoder.question
    recording_id, table = next(iter(question.scale.tables.items()))
    silence = torch.zeros(question.num_timesteps + decoder.context, len(table))
    activity = Activity(recording_id=recording_id, values=silence, unit_ids=list(table.index))
    decoder.answer(activity, np.array([decoder.context]))
