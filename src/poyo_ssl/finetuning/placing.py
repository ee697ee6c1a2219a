"""Decoders of other animals brought to new recordings, without a label of theirs."""

from __future__ import annotations

import copy
from dataclasses import replace

from poyo_ssl.decoders.network import NetworkDecoder
from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.training.transfer import TransferError
from poyo_ssl.windows.population import MADE_BY, Population


def place_decoder(
    decoder: NetworkDecoder, population: Population, *, arm: str = "placed"
) -> NetworkDecoder:
    """A decoder of other animals for the units of new recordings.

    Args:
        decoder: Fitted with an encoder that was pretrained with ``alignment``; it is not changed.
        population: New recordings that show the stimulus by which its units were placed. Labels
            are not looked at.
        arm: Name in results.

    Returns:
        Answers for the recordings of the population.

    Raises:
        RecordingError: If a recording does not show that stimulus in its training time, or the
            decoder's task tests it there.
        TransferError: If the decoder's encoder knows units by name alone.
    """
    require_kind(population, Population, MADE_BY)
    placement = decoder.networks[0].encoder.placement
    if placement is None:
        raise TransferError(
            f"The decoder '{decoder.question.arm}' knows units by name alone, so that those of "
            "another animal are strangers to it. Fit it with an encoder that was pretrained with "
            "alignment."
        )
    placed = placement.place_unscored(population, decoder.question.task)
    networks = copy.deepcopy(decoder.networks)
    for network in networks:
        network.encoder.place_units(placed)
    scale = placement.centred(population, placed).scale
    return decoder.of_networks(replace(decoder.question, arm=arm, scale=scale), networks)
