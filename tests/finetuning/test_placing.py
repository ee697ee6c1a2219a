"""Networks that are brought to new animals by what all animals saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poyo_ssl.adaptation.adapt import AdaptationConfig, adapt
from poyo_ssl.alignment.placement import AlignmentConfig, Placement
from poyo_ssl.alignment.responses import measure_responses
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.decoders.network import NetworkDecoder
from poyo_ssl.decoders.streaming import StreamingDecoder
from poyo_ssl.evaluation.evaluate import evaluate
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.placing import place_decoder
from poyo_ssl.model.checkpoints import load_encoder, save_encoder
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.transfer import TransferError
from poyo_ssl.windows.population import Population
from synthetic_animals import DIMENSIONS, SHARED, TASK, animal, populate

ENCODER = EncoderConfig(
    dim=16, depth=0, num_heads=2, dim_head=8, latents_per_step=2, latent_step=1.0,
    patch_length=0.5, tokens="projected",
)  # fmt: skip
ALIGNMENT = AlignmentConfig(num_dimensions=DIMENSIONS, bin_width=0.5, smoothing=0.0)
QUICK = TrainingConfig(max_steps=2, batch_size=8, jitter=0.0)
LEARNING = FinetuningConfig(
    members=2,
    transfer="weights",
    training=TrainingConfig(max_steps=80, batch_size=32, lr=1e-2, jitter=0.0, unit_dropout=0.2),
)


@pytest.fixture(scope="module")
def others() -> Population:
    return populate([animal(name) for name in "abcd"])


@pytest.fixture(scope="module")
def newcomer() -> Population:
    return populate([animal("z")])


@pytest.fixture(scope="module")
def encoder(others):
    """Placed, and pretrained for as good as nothing."""
    config = PretrainingConfig(alignment=ALIGNMENT, window_length=1.0, training=QUICK)
    return pretrain(others, config, encoder=ENCODER)


@pytest.fixture(scope="module")
def decoder(others, encoder) -> NetworkDecoder:
    fitted = finetune(others, TASK, encoder, LEARNING)
    assert isinstance(fitted, NetworkDecoder)
    return fitted


def rows(encoder, population: Population) -> torch.Tensor:
    return encoder.unit_embedding(encoder.unit_rows(population.unit_ids)).detach()


# placement -----------------------------------------------------------------------------------


def test_placed_activity_is_of_variance_one_and_alike_in_all_animals(others, newcomer):
    placement = Placement.fit(others, SHARED, DIMENSIONS)
    projected = []
    for population in (others, newcomer):
        for name, loadings in placement.place(population).items():
            [divided] = [d for d in population.divided if d.recording.recording_id == name]
            activity = measure_responses(population, divided, SHARED).activity - loadings.center
            embeddings = placement.embeddings(loadings, 16).numpy()
            projected.append(activity @ embeddings / len(embeddings) ** 0.5)
    for one in projected:
        assert np.square(one).mean() == pytest.approx(1, rel=1e-3)
        assert np.corrcoef(one.ravel(), projected[0].ravel())[0, 1] > 0.95


def test_windows_of_networks_alone_are_relative_to_the_response(others):
    placement = Placement.fit(others, SHARED, DIMENSIONS)
    placed = placement.place(others)
    centred = placement.centred(others, placed)
    before, after = others.activity["a"], centred.activity["a"]
    first = np.array([0, 30])
    rest = torch.from_numpy(placed["a"].center).float()
    torch.testing.assert_close(after.windows(first, 10), before.windows(first, 10) - rest)
    columns = np.array([3, 1])
    torch.testing.assert_close(
        after.windows(first, 10, columns), before.windows(first, 10, columns) - rest[columns]
    )
    np.testing.assert_array_equal(after.binned(first, 10, 2), before.binned(first, 10, 2))
    again = placement.centred(centred, placement.place(centred))
    torch.testing.assert_close(again.activity["a"].rest, after.rest)


def test_more_dimensions_than_embeddings_have_are_refused(others):
    placement = Placement.fit(others, SHARED, 12)
    [loadings, *_] = placement.place(others).values()
    with pytest.raises(ValueError, match="size 8 cannot hold a space of 12 dimensions"):
        placement.embeddings(loadings, 8)


def test_the_stimulus_is_found_or_named(others):
    divided = list(others.divided)
    assert AlignmentConfig().shared(divided, ["flashes"]).stimulus == "sequence"
    named = AlignmentConfig(stimulus="flashes/picture").shared(divided, [])
    assert (named.stimulus, named.column) == ("flashes", "picture")
    with pytest.raises(RecordingError, match="is shown in all of 4 recordings"):
        AlignmentConfig().shared(divided, ["sequence"])
    with pytest.raises(ValueError, match="natural_movie_one/movie_frame, got 'sequence'"):
        AlignmentConfig(stimulus="sequence")


# encoders ------------------------------------------------------------------------------------


def test_pretraining_leaves_units_where_they_were_placed(others, encoder):
    placed = encoder.placement.place(others)
    expected = torch.cat([encoder.placement.embeddings(one, 16) for one in placed.values()])
    torch.testing.assert_close(rows(encoder, others), expected)


def test_a_saved_encoder_places_a_new_animal_alike(encoder, newcomer, tmp_path):
    save_encoder(encoder, tmp_path)
    decoders = [finetune(newcomer, TASK, one, replace(LEARNING, training=QUICK))
                for one in (encoder, load_encoder(tmp_path))]  # fmt: skip
    placed = encoder.placement.place(newcomer)["z"]
    for one in decoders:
        embeddings = rows(one.networks[0].encoder, newcomer)
        torch.testing.assert_close(embeddings, encoder.placement.embeddings(placed, 16))
    assert "z/0" not in encoder.unit_embedding.vocab  # it was copied


def test_units_of_before_keep_their_places_beside_new_ones(encoder, others):
    both = populate([animal("a"), animal("z")])
    decoder = finetune(both, TASK, encoder, replace(LEARNING, training=QUICK))
    known = decoder.networks[0].encoder
    first = others.activity["a"].unit_ids
    torch.testing.assert_close(
        known.unit_embedding(known.unit_rows(first)),
        encoder.unit_embedding(encoder.unit_rows(first)),
    )


# decoders ------------------------------------------------------------------------------------


def accuracy(decoder, population: Population) -> float:
    return float(evaluate(decoder, population.divided).table["accuracy"].mean())


def test_labels_of_other_animals_decode_a_new_one_by_the_network(decoder, newcomer):
    assert accuracy(place_decoder(decoder, newcomer), newcomer) > 0.8  # chance 0.25


def test_a_placed_decoder_is_saved_and_streams_what_it_answers(decoder, newcomer, tmp_path):
    placed = place_decoder(decoder, newcomer)
    recording = newcomer.divided[0].recording
    first = np.arange(5)
    expected = placed.predict(recording, first)
    placed.save(tmp_path)
    np.testing.assert_allclose(
        load_decoder(tmp_path).predict(recording, first), expected, atol=1e-6
    )
    stream = StreamingDecoder(placed, list(recording.unit_ids), "z")
    pushed = [
        stream.push(sample) for sample in recording.df_over_f[: placed.question.num_timesteps + 4]
    ]
    np.testing.assert_allclose([one for one in pushed if one is not None], expected, atol=1e-4)


def test_shuffled_embeddings_of_placed_units_say_nothing(decoder, newcomer):
    frozen = replace(LEARNING, transfer="probe", training=QUICK)
    kept = finetune(newcomer, TASK, decoder, frozen)
    shuffled = finetune(newcomer, TASK, decoder, replace(frozen, embeddings="shuffled"))
    assert accuracy(shuffled, newcomer) < 0.6 < accuracy(kept, newcomer)


def test_what_places_units_must_not_be_tested(decoder):
    task = replace(TASK, stimulus="sequence", column="segment", name="")
    population = populate([animal("z")], task)
    with pytest.raises(RecordingError, match="aligning would use the answers"):
        finetune(population, task, decoder.networks[0].encoder, LEARNING)


def test_a_decoder_that_knows_units_by_name_cannot_be_placed(others, newcomer):
    free = finetune(others, TASK, ENCODER, replace(LEARNING, transfer="full", training=QUICK))
    with pytest.raises(TransferError, match="knows units by name alone"):
        place_decoder(free, newcomer)


# adapting ------------------------------------------------------------------------------------


def test_adapting_places_new_units_and_says_so(encoder, newcomer):
    config = AdaptationConfig(finetuning=replace(LEARNING, training=QUICK))
    recording = newcomer.divided[0].recording
    _, adaptation = adapt(encoder, recording, TASK, config, unit_ids={"z": newcomer.unit_ids})
    assert "0 of 30 units known, 30 placed" in str(adaptation)
    with pytest.raises(ValueError, match="nothing is left to identify"):
        adapt(
            encoder,
            recording,
            TASK,
            replace(config, identify=True),
            unit_ids={"z": newcomer.unit_ids},
        )
