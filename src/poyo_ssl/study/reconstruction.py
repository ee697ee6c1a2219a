"""How well each unit can be told from the others: what skewness and kurtosis stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
import torch

from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.predictability.unit_statistics import compute_predictability
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.mode_embeddings import embed_by_modes
from poyo_ssl.pretraining.objectives.masked_activity import (
    HiddenPatches,
    MaskedActivity,
    MaskedActivityNetwork,
)
from poyo_ssl.study.held_out_patches import Patches, cut_patches
from poyo_ssl.study.linear_reconstruction import (
    predict_by_population_mean,
    predict_by_ridge,
    variance_explained,
)
from poyo_ssl.training.engine import fit
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.training_batches import TrainingBatches, WindowBatch

PROXIES = ("skewness", "kurtosis")
ESTIMATES = (
    "r2_network",
    "r2_population_mean",
    "r2_ridge",
    "r2_network_above_mean",
    "r2_ridge_above_mean",
)
NUM_RESAMPLES = 2000
"""Resamples of the units, for a bootstrap interval."""
FEWEST_UNITS = 10
"""Below it a rank correlation and its interval mean nothing."""
BATCH_SIZE = 64
"""Windows that the network is shown together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """Held-out activity of a recording, and what was told of each unit from the others.

    The predictions have the shape of ``patches.held_out``.
    """

    patches: Patches
    network: np.ndarray
    """By the network, which the unit was hidden from for the whole window."""
    population_mean: np.ndarray
    """By a line from the mean over the other units in the same patch."""
    ridge: np.ndarray
    """By ridge regression on all other units in the same patch."""


def measure_reconstruction(
    population: Population,
    encoder_config: EncoderConfig,
    pretraining_config: PretrainingConfig,
    *,
    seed: int,
) -> pd.DataFrame:
    """Measures how much of each unit's held-out activity the other units tell.

    All is measured on patches of the encoder's length, of normalised activity. R² is 1 less the
    squared error over the variance about the unit's own held-out mean, so it can be negative. A
    unit that is constant on held-out time has none (NaN).

    Args:
        population: Recordings and units. Held out is the time that validates or tests any task
            that the recordings were divided for; nothing is fitted to it.
        encoder_config: Config of a fresh encoder.
        pretraining_config: How it learns: masked_activity of hidden units.
        seed: Seed of weights, masks and batches, and of which units are hidden together.

    Returns:
        One row per unit of every recording, in column order: ``recording_id``, ``unit_id``,
        ``skewness`` and ``kurtosis`` of ΔF/F (training time, Pearson's), ``num_patches`` (held
        out), ``r2_network``, ``r2_population_mean``, ``r2_ridge``, and how far network and ridge
        are above the population mean, ``r2_network_above_mean`` and ``r2_ridge_above_mean``.

    Raises:
        ValueError: If the objective does not predict the activity of hidden units.
        RecordingError: If a recording has no held-out window, or a single unit.
    """
    reconstructions = reconstruct_held_out(
        population, encoder_config, pretraining_config, seed=seed
    )
    tables = []
    for divided, found in zip(population.divided, reconstructions, strict=True):
        recording, patches = divided.recording, found.patches
        statistics = compute_predictability(
            recording.df_over_f, recording.is_inside(divided.training)
        )
        statistics = statistics.set_index(recording.unit_ids).loc[patches.unit_ids]
        table = statistics[list(PROXIES)].rename_axis("unit_id").reset_index()
        table.insert(0, "recording_id", patches.recording_id)
        table["num_patches"] = patches.held_out[..., 0].size
        for name in ("network", "population_mean", "ridge"):
            table[f"r2_{name}"] = variance_explained(patches.held_out, getattr(found, name))
        for name in ("network", "ridge"):
            table[f"r2_{name}_above_mean"] = table[f"r2_{name}"] - table["r2_population_mean"]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def reconstruct_held_out(
    population: Population,
    encoder_config: EncoderConfig,
    pretraining_config: PretrainingConfig,
    *,
    seed: int,
) -> list[Reconstruction]:
    """Predicts every unit on held-out time; see :func:`measure_reconstruction`.

    The network hides units in groups of the size that it was trained with, each unit once. The
    linear predictions are fitted to each recording alone and see all units but one.

    Returns:
        One for each recording of the population.
    """
    _require_hidden_units(pretraining_config)
    recordings = cut_patches(population, encoder_config, pretraining_config.window_length)
    network = fit_network(population, encoder_config, pretraining_config, seed=seed)
    found = []
    for patches in recordings:
        shape = patches.held_out.shape
        train, held_out = (x.reshape(-1, shape[-1]) for x in (patches.train, patches.held_out))
        activity = population.activity[patches.recording_id]
        hidden_fraction = pretraining_config.masked_activity.hidden_fraction
        groups = divide_units(shape[-1], hidden_fraction, seed)
        found.append(
            Reconstruction(
                patches=patches,
                network=predict_by_network(network, activity, patches, groups),
                population_mean=predict_by_population_mean(train, held_out).reshape(shape),
                ridge=predict_by_ridge(train, held_out).reshape(shape),
            )
        )
    return found


def fit_network(
    population: Population, encoder_config: EncoderConfig, config: PretrainingConfig, *, seed: int
) -> MaskedActivityNetwork:
    """Pretrains an encoder on training time to its last step, and keeps what answers queries.

    Unlike :func:`poyo_ssl.pretraining.pretrain.pretrain` it does not validate: validation time is
    scored here, so it must not choose the weights.
    """
    torch.manual_seed(seed)
    encoder = Encoder(encoder_config, population.sampling_rate)
    encoder.add_units(population.unit_ids)
    if config.embedding_modes:
        embed_by_modes(encoder, population, config.embedding_modes, config.window_length)
    batches = TrainingBatches(
        population.unlabelled_sources(encoder, encoder.window_timesteps(config.window_length)),
        batch_size=config.training.batch_size,
        seed=seed,
        jitter=0,
        unit_dropout=config.training.unit_dropout,
    )
    module = MaskedActivity(encoder, config, seed, num_classes=0)
    fit(module, batches, None, seed=seed)
    return module.network


def divide_units(num_units: int, hidden_fraction: float, seed: int) -> list[np.ndarray]:
    """Divides units at random into groups that are hidden in turn: columns of each group.

    At least two groups, of a size that differs by one unit at most.
    """
    num_groups = min(num_units, max(2, round(1 / hidden_fraction)))
    order = np.random.default_rng(seed).permutation(num_units)
    return np.array_split(order, num_groups)


@torch.no_grad()
def predict_by_network(
    network: MaskedActivityNetwork, activity: Activity, patches: Patches, groups: list[np.ndarray]
) -> np.ndarray:
    """Predicts each unit from windows that its group is hidden from.

    Args:
        network: Knows all units.
        activity: Activity of one recording.
        patches: Patches of the same recording; its held-out windows are predicted.
        groups: Columns of the units that are hidden together; every unit in one group.

    Returns:
        Mean of every patch, the shape of ``patches.held_out``.
    """
    network.eval()
    encoder, device = network.encoder, network.encoder.latent_embedding.device
    size = encoder.patch_timesteps
    num_timesteps = patches.held_out.shape[1] * size
    rows = encoder.unit_rows(activity.unit_ids).to(device)
    predicted = np.empty_like(patches.held_out)
    for start in range(0, len(predicted), BATCH_SIZE):
        windows = slice(start, start + BATCH_SIZE)
        shown = activity.windows(patches.first_timestep[windows], num_timesteps).to(device)
        group = WindowBatch(activity=shown, unit_index=rows, target=torch.full((len(shown),), -1))
        for columns in groups:
            [answer], _ = network([_hide_units(group, columns, size)])
            means = answer.mean(-1).unflatten(1, (-1, len(columns)))
            predicted[windows][:, :, columns] = means.cpu().numpy()
    return predicted


def _hide_units(group: WindowBatch, columns: np.ndarray, patch_timesteps: int) -> HiddenPatches:
    """Hides some units of all windows and asks about all of their patches, patch by patch."""
    num_windows, num_timesteps, num_units = group.activity.shape
    num_patches, device = num_timesteps // patch_timesteps, group.activity.device
    hidden = torch.from_numpy(columns).to(device)
    is_hidden = torch.zeros(num_windows, num_patches, num_units, dtype=torch.bool, device=device)
    is_hidden[:, :, hidden] = True
    patches = torch.arange(num_patches, device=device).repeat_interleave(len(columns))
    return HiddenPatches(
        group=group,
        is_hidden=is_hidden,
        asked_unit=hidden.repeat(num_patches).expand(num_windows, -1),
        asked_patch=patches.expand(num_windows, -1),
    )


def correlate_with_proxies(units: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Rank correlation of what can be told of units with their skewness and kurtosis.

    Args:
        units: As :func:`measure_reconstruction` returns them, with any of its estimates. Units
            without R² are left out.
        seed: Seed of the bootstrap.

    Returns:
        One row per recording, estimate and proxy: ``recording_id``, ``estimate``, ``proxy``,
        ``num_units``, ``spearman``, and ``low`` and ``high``, the 95 % percentile interval over
        units drawn again with replacement.

    Raises:
        ValueError: If a recording has fewer than ``FEWEST_UNITS`` units.
    """
    rows, estimates = [], [name for name in ESTIMATES if name in units]
    for recording_id, table in units.groupby("recording_id", sort=False):
        table = table.dropna(subset=[*estimates, *PROXIES])
        if len(table) < FEWEST_UNITS:
            raise ValueError(
                f"Recording '{recording_id}' has {len(table)} units with R², too few for a rank "
                f"correlation: {FEWEST_UNITS} are needed. Choose more units, or leave it out."
            )
        for estimate in estimates:
            for proxy in PROXIES:
                pair = table[estimate].to_numpy(), table[proxy].to_numpy()
                bounds = scipy.stats.bootstrap(
                    pair,
                    _spearman,
                    paired=True,
                    n_resamples=NUM_RESAMPLES,
                    method="percentile",
                    rng=np.random.default_rng(seed),
                ).confidence_interval
                row = (recording_id, estimate, proxy, len(table), _spearman(*pair))
                rows.append((*row, float(bounds.low), float(bounds.high)))
    columns = ["recording_id", "estimate", "proxy", "num_units", "spearman", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _spearman(one: np.ndarray, two: np.ndarray, axis: int = -1) -> np.ndarray:
    """Spearman's correlation along an axis; unlike scipy's, of many resamples at once."""
    ranks = [scipy.stats.rankdata(values, axis=axis) for values in (one, two)]
    x, y = (rank - rank.mean(axis=axis, keepdims=True) for rank in ranks)
    spread = np.sqrt(np.square(x).sum(axis=axis) * np.square(y).sum(axis=axis))
    correlation: np.ndarray = (x * y).sum(axis=axis) / spread
    return correlation


def _require_hidden_units(config: PretrainingConfig) -> None:
    required: dict[str, tuple[object, object]] = {
        "objective": (config.objective, "masked_activity"),
        "masked_activity.pattern": (config.masked_activity.pattern, "units"),
        "masked_activity.remove_modes": (config.masked_activity.remove_modes, 0),
        "label_weight": (config.label_weight, 0.0),
    }
    wrong = {name: pair for name, pair in required.items() if pair[0] != pair[1]}
    if wrong:
        raise ValueError(
            "Units are reconstructed by a network that predicts the whole activity of hidden "
            "units and nothing else; got "
            f"{', '.join(f'{name}: {found}' for name, (found, _) in wrong.items())}. Set "
            f"{', '.join(f'{name}: {needed}' for name, (_, needed) in wrong.items())}."
        )
