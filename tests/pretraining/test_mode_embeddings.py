"""Units' embeddings in closed form: what they do together, alike for cells that are tracked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.mode_embeddings import embed_by_modes
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION

WINDOW = 2.0


def population_of(recordings) -> Population:
    divided = divide(recordings, [DIRECTION], SplitConfig())
    return Population(
        divided, {d.recording.recording_id: list(d.recording.unit_ids) for d in divided}
    )


@pytest.fixture(scope="module")
def one_day(tiny_recording) -> Population:
    return population_of([tiny_recording])


def fresh(population: Population, dim: int = 16) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(dim=dim, dim_head=8, patch_length=0.5), 10.0)
    encoder.add_units(population.unit_ids)
    return encoder


def embeddings(encoder: Encoder, unit_ids: list[str]) -> torch.Tensor:
    return encoder.unit_embedding(torch.tensor(encoder.unit_embedding.tokenizer(unit_ids))).detach()


def test_activity_weighted_embeddings_are_modes_of_equal_variance(one_day):
    encoder = fresh(one_day)
    embed_by_modes(encoder, one_day, 3, WINDOW)
    [source] = one_day.unlabelled_sources(encoder, 20, stride=10)
    windows = source.binned(1)
    pooled = (windows - windows.mean(0)) @ embeddings(encoder, one_day.unit_ids).numpy()
    variances = np.linalg.svd(pooled, compute_uv=False)[:4] ** 2
    assert np.allclose(variances[:3], variances[0], rtol=0.1)
    assert variances[3] < 1e-6 * variances[0]


def test_what_all_units_share_is_not_embedded(one_day):
    encoder = fresh(one_day)
    embed_by_modes(encoder, one_day, 3, WINDOW)
    [source] = one_day.unlabelled_sources(encoder, 20, stride=10)
    windows = source.binned(1)
    first = np.linalg.svd(windows - windows.mean(0), full_matrices=False)[2][0]
    assert np.abs(first @ embeddings(encoder, one_day.unit_ids).numpy()).max() < 0.05


def test_embeddings_are_as_large_as_random_ones(one_day):
    encoder = fresh(one_day)
    embed_by_modes(encoder, one_day, 3, WINDOW)
    assert embeddings(encoder, one_day.unit_ids).square().mean() == pytest.approx(1.0)


def test_cells_tracked_over_two_days_bring_new_ones_into_one_frame(one_day, tiny_recording):
    later = replace(
        tiny_recording,
        recording_id="later",
        units=tiny_recording.units.assign(unit_id=[f"tiny-{i}" for i in range(5)] + ["new"]),
    )
    alone = fresh(one_day)
    embed_by_modes(alone, one_day, 3, WINDOW)
    both = population_of([tiny_recording, later])
    encoder = fresh(both)
    embed_by_modes(encoder, both, 3, WINDOW)
    # the last cell is another one by name, but did the same as on the first day
    assert torch.allclose(embeddings(encoder, ["new"]), embeddings(encoder, ["tiny-5"]), atol=1e-5)


def test_known_units_keep_their_embeddings(one_day):
    encoder = fresh(one_day)
    before = embeddings(encoder, ["tiny-1", "tiny-2"])
    embed_by_modes(encoder, one_day, 3, WINDOW, known=frozenset(["tiny-1", "tiny-2"]))
    assert torch.equal(embeddings(encoder, ["tiny-1", "tiny-2"]), before)


@pytest.mark.parametrize(("num_modes", "dim"), [(5, 16), (6, 16)])
def test_too_few_units_for_the_modes_are_refused(one_day, num_modes, dim):
    with pytest.raises(RecordingError, match=r"'tiny' has 6 units, too few"):
        embed_by_modes(fresh(one_day, dim), one_day, num_modes, WINDOW)


def test_more_modes_than_dimensions_are_refused(one_day):
    with pytest.raises(ValueError, match="17 modes do not fit"):
        embed_by_modes(fresh(one_day), one_day, 17, WINDOW)


def test_pretraining_by_modes_alone_trains_nothing(one_day):
    config = EncoderConfig(dim=16, dim_head=8, patch_length=0.5)
    modes = PretrainingConfig(objective="modes", embedding_modes=3)
    encoder = pretrain(one_day, modes, encoder=config, seed=0)
    fit = encoder.fit
    untouched, expected = fresh(one_day), fresh(one_day)
    embed_by_modes(expected, one_day, 3, WINDOW)
    assert fit.best_step == 0
    assert fit.curves.empty
    assert torch.equal(encoder.value_map.weight, untouched.value_map.weight)
    assert embeddings(encoder, one_day.unit_ids).square().mean() == pytest.approx(1.0)


def test_an_objective_may_go_on_from_the_modes(one_day):
    config = EncoderConfig(dim=16, dim_head=8, patch_length=0.5)
    few = replace(PretrainingConfig().training, max_steps=2, batch_size=8)
    start = PretrainingConfig(embedding_modes=3, training=few)
    at_random = PretrainingConfig(training=few)
    one, other = (pretrain(one_day, c, encoder=config, seed=0) for c in (start, at_random))
    assert not torch.allclose(
        embeddings(one, one_day.unit_ids), embeddings(other, one_day.unit_ids), atol=0.1
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "modes"}, "set embedding_modes"),
        ({"objective": "modes", "embedding_modes": 3, "label_weight": 1.0}, "does not read labels"),
        ({"embedding_modes": -1}, "must not be negative"),
    ],
)
def test_modes_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PretrainingConfig(**options)
