"""An encoder that says what every unit will do next, beyond what its own past says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder, EncoderConfig, QueryDecoder
from poyo_ssl.model.fit import Fit
from poyo_ssl.study.forecast_windows import Spans, unrooted
from poyo_ssl.study.linear_forecasts import OwnPast
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.engine import fit
from poyo_ssl.training.transfer import prepare_encoder
from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.activity import Activity, Windows
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.training_batches import TrainingBatches, WindowBatch, thin

BATCH_SIZE = 64
"""Windows that a network is shown together where it does not learn."""
NUM_ASKED = 64
"""Units of a recording that a step of training asks about; it reads the others, too."""


class Forecaster(nn.Module):
    """Encoder, and a query decoder asked "what comes after this past of this unit?".

    The answer is added to a linear forecast from the unit's own past, and begins at zero.

    Args:
        encoder: Reads the context of all units.
        spans: Lengths of context, bins and horizon.
        own_past: Recording id to the linear forecast, of the activity's units in order.
        units: Recording id to these units.
    """

    def __init__(
        self,
        encoder: Encoder,
        spans: Spans,
        own_past: dict[str, OwnPast],
        units: dict[str, list[str]],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.spans = spans
        dim, unit_dim = encoder.config.dim, encoder.unit_embedding.embedding_dim
        self.unit_map = nn.Identity() if unit_dim == dim else nn.Linear(unit_dim, dim)
        self.past_map = nn.Linear(spans.num_past, dim)
        self.query_decoder = QueryDecoder(encoder.config)
        self.readout = nn.Linear(dim, spans.num_steps)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        num_rows = len(encoder.unit_embedding.vocab)
        self.mean = nn.Buffer(torch.zeros(num_rows))
        self.weights = nn.Buffer(torch.zeros(spans.num_past, spans.num_steps, num_rows))
        for recording_id, linear in own_past.items():
            rows = encoder.unit_rows(units[recording_id])
            self.mean[rows] = torch.from_numpy(linear.mean).float()
            self.weights[..., rows] = torch.from_numpy(linear.weights).float()

    def forward(
        self, groups: Sequence[Windows], asked: Sequence[Tensor | slice] | None = None
    ) -> list[Tensor]:
        """Contexts of normalised activity to what follows.

        Args:
            groups: Contexts of all units.
            asked: Columns of the units of each group to answer for; None for all.

        Returns:
            z-scores, (B, num_steps, units asked) a group.
        """
        asked = asked or [slice(None)] * len(groups)
        latents = self.encoder.encode_groups(groups)
        latent_phases = self.encoder.latent_phases(self.spans.context_timesteps)
        end = self.spans.num_timesteps + self.spans.context_timesteps
        time = torch.full((1, 1), end / 2 / self.encoder.sampling_rate, device=latents.device)
        answers = []
        parts = latents.split([len(group.activity) for group in groups])
        for group, columns, part in zip(groups, asked, parts, strict=True):
            activity, unit_index = group.activity[..., columns], group.unit_index[columns]
            past = self.spans.bins(activity).transpose(1, 2)  # (B, U, num_past)
            queries = self.unit_map(self.encoder.unit_embedding(unit_index)) + self.past_map(past)
            phases = self.encoder.rotary(time).expand(*queries.shape[:2], -1)
            read = self.query_decoder(queries, part, phases, latent_phases)
            answers.append(self.own_past(activity, unit_index) + self.readout(read).mT)
        return answers

    def own_past(self, activity: Tensor, unit_index: Tensor) -> Tensor:
        """The linear forecast from each unit's own past, (B, num_steps, U)."""
        mean, weights = self.mean[unit_index], self.weights[..., unit_index]
        past = self.spans.bins(unrooted(activity)) - mean
        return mean + torch.einsum("bpu,psu->bsu", past, weights)


class Forecasting(WindowModule):
    """Forecasts z-scores of all units; mean squared error."""

    network: Forecaster

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss``, every window with the same weight."""
        spans, num_windows = self.network.spans, sum(len(group.target) for group in batch)
        contexts = [
            Windows(group.activity[:, : spans.context_timesteps], group.unit_index)
            for group in batch
        ]
        asked = [self._ask(len(group.unit_index)) for group in batch]
        error = torch.zeros((), device=batch[0].activity.device)
        answers = self.network(contexts, asked)
        for group, columns, forecast in zip(batch, asked, answers, strict=True):
            future = group.activity[:, spans.context_timesteps :, columns]
            future = spans.bins(unrooted(future))
            share = len(group.target) / num_windows
            error = error + share * (forecast - future).square().mean()
        return {"loss": error}

    def _ask(self, num_units: int) -> Tensor | slice:
        """Columns of units drawn at random in training; all of them elsewhere."""
        return torch.randperm(num_units)[:NUM_ASKED] if self.training else slice(None)


class Fitted(NamedTuple):
    """A network that forecasts, and how it was fitted."""

    network: Forecaster
    fit: Fit


def fit_forecaster(
    population: Population,
    spans: Spans,
    own_past: dict[str, OwnPast],
    encoder: Encoder | EncoderConfig,
    config: TrainingConfig,
    *,
    seed: int,
) -> Fitted:
    """Fits a network to training time until validation time is forecast no better.

    Args:
        population: Recordings of :func:`poyo_ssl.study.forecast_windows.hold_out_ends`, and units.
        spans: Lengths.
        own_past: Recording id to the linear forecast that is corrected.
        encoder: A pretrained one, which is copied, or the config of a fresh one.
        config: How; ``jitter`` is not used, since windows begin at every sample.
        seed: Seed of weights and batches.
    """
    torch.manual_seed(seed)
    encoder = prepare_encoder(encoder, population.sampling_rate)
    encoder.add_units(population.unit_ids)
    units = {name: activity.unit_ids for name, activity in population.activity.items()}
    module = Forecasting(Forecaster(encoder, spans, own_past, units), config)
    train = TrainingBatches(
        population.unlabelled_sources(encoder, spans.num_timesteps),
        batch_size=config.batch_size,
        seed=seed,
        jitter=0,
        unit_dropout=config.unit_dropout,
    )
    sources = population.unlabelled_sources(encoder, spans.num_timesteps, part="valid")
    valid = EvaluationBatches(thin(sources, config.max_valid_windows), batch_size=BATCH_SIZE)
    return Fitted(module.network, fit(module, train, valid, seed=seed))


@torch.no_grad()
def forecast_by_network(
    network: Forecaster, activity: Activity, first_timestep: np.ndarray
) -> np.ndarray:
    """Forecasts what follows contexts of one recording.

    Args:
        network: Knows the units.
        activity: Normalised, as networks read it.
        first_timestep: Where each context begins, (num_windows,).

    Returns:
        z-scores, (num_windows, num_steps, num_units).
    """
    network.eval()
    device = network.encoder.latent_embedding.device
    rows = network.encoder.unit_rows(activity.unit_ids).to(device)
    parts = []
    for start in range(0, len(first_timestep), BATCH_SIZE):
        first = first_timestep[start : start + BATCH_SIZE]
        context = activity.windows(first, network.spans.context_timesteps).to(device)
        [forecast] = network([Windows(context, rows)])
        parts.append(forecast.cpu().numpy())
    return np.concatenate(parts)
