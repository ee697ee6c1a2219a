"""Unit embeddings in closed form: what each unit does together with the others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.principal_modes import PrincipalModes
from poyo_ssl.windows.training_batches import WindowSource


def embed_by_modes(
    encoder: Encoder,
    population: Population,
    num_modes: int,
    window_length: float,
    *,
    known: frozenset[str] = frozenset(),
) -> None:
    """Gives units their loadings on the whitened modes of unlabelled activity as embeddings.

    A gain-modulated token is the unit's embedding scaled by its activity, and attention averages
    tokens over units: with these embeddings the average is the activity of the modes, each with
    the same variance. The first mode, which all units share, is left out. Modes are turned into
    the embedding's dimensions by a random rotation; recordings that share cells are turned so
    that the shared cells' embeddings agree (orthogonal Procrustes), so units of a new recording
    can be embedded without labels or training if some of its cells are known.

    Args:
        encoder: Knows all units of the population; their embeddings are changed in place.
        population: Its training part is looked at, a window every half of its length.
        num_modes: Modes beside the first.
        window_length: Seconds over which activity is averaged.
        known: Ids of units that keep the embeddings they have, such as pretrained ones.

    Raises:
        RecordingError: If a recording has too few units for so many modes.
        ValueError: If the embedding has fewer dimensions than modes.
    """
    weight = encoder.unit_embedding.weight.detach()
    dim = weight.shape[1]
    if num_modes > dim:
        raise ValueError(
            f"{num_modes} modes do not fit into unit embeddings of {dim} dimensions. Ask for "
            "fewer modes, or raise encoder.dim."
        )
    placed = set(known)
    for source in population.unlabelled_sources(encoder, encoder.window_timesteps(window_length)):
        unit_ids, rows = source.activity.unit_ids, source.unit_index
        loadings = _whitened_loadings(source, num_modes) * dim**0.5
        is_placed = torch.tensor([unit_id in placed for unit_id in unit_ids])
        anchors = weight[rows[is_placed]].double()
        turned = loadings @ _rotation(loadings[is_placed], anchors, dim)
        weight[rows[~is_placed]] = turned[~is_placed].float()
        placed.update(unit_ids)


def _whitened_loadings(source: WindowSource, num_modes: int) -> Tensor:
    """Loadings on modes of equal variance, of mean square 1 / num_modes, (U, num_modes)."""
    num_units = len(source.activity.unit_ids)
    if num_units <= num_modes + 1:
        raise RecordingError(
            f"Recording '{source.activity.recording_id}' has {num_units} units, too few for "
            f"{num_modes} modes and the one that is left out. Set num_modes below {num_units - 1}."
        )
    modes = PrincipalModes.measure(source.half_apart().binned(1))
    kept = slice(1, num_modes + 1)
    variance = np.maximum(modes.variance[kept], 1e-9 * modes.variance[0])
    loadings = modes.loadings[:, kept] / np.sqrt(variance)
    return torch.from_numpy(loadings / np.sqrt(np.square(loadings).sum(1).mean()))


def _rotation(loadings: Tensor, anchors: Tensor, dim: int) -> Tensor:
    """Orthonormal rows (num_modes, dim) that bring loadings nearest to known embeddings.

    Where none is known any will do, and the global random generator draws one.
    """
    target = loadings.T @ anchors  # (num_modes, dim)
    if not len(loadings):
        target = torch.randn(loadings.shape[1], dim, dtype=loadings.dtype)
    left, _, right = torch.linalg.svd(target, full_matrices=False)
    return left @ right
