"""Loading of fitted decoders of every kind."""

from __future__ import annotations

from pathlib import Path

from poyo_ssl.decoders.fitted_decoder import DecoderFrame, FittedDecoder
from poyo_ssl.decoders.network import NetworkDecoder
from poyo_ssl.decoders.reference_decoders import LabelReadout, MeanFrame, NearestFrame, PixelReadout
from poyo_ssl.model.checkpoints import CheckpointError, load_checkpoint


def load_decoder(directory: str | Path) -> FittedDecoder:
    """Loads what :meth:`FittedDecoder.save` wrote; nothing in the files is executed.

    Raises:
        CheckpointError: If the directory holds no complete checkpoint of a fitted decoder.
    """
    tensors, settings = load_checkpoint(directory)
    kinds = {
        kind.KIND: kind
        for kind in (LabelReadout, PixelReadout, MeanFrame, NearestFrame, NetworkDecoder)
    }
    if settings.get("kind") not in kinds:
        raise CheckpointError(
            f"'{directory}' holds no fitted decoder but '{settings.get('kind')}'. "
            "Give a directory that 'poyo-ssl finetune' or 'run' wrote."
        )
    try:
        return kinds[settings["kind"]].of(DecoderFrame.of(settings, tensors), settings, tensors)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise CheckpointError(
            f"The checkpoint in '{directory}' does not load ({error!r}). It was changed after it "
            "was written, or written by another version: fit the decoder again."
        ) from error
