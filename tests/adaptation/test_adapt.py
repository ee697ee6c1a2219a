"""A pretrained encoder is brought to new recordings in one call, which says what that took."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from poyo_ssl.adaptation.adapt import AdaptationConfig, adapt
from poyo_ssl.model.checkpoints import CheckpointError, network_tensors, save_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.identify_units import identify_units
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.training.transfer import TransferError
from poyo_ssl.windows.label_budget import LabelBudget
from tiny_fits import ENCODER, few_steps
from tiny_runs import SPLITS, tiny_observatory

NUM_KNOWN = 5
"""Of the eight units of the recording."""


@pytest.fixture(scope="module")
def recording():
    return tiny_observatory()[0]


@pytest.fixture
def pretrained(recording):
    torch.manual_seed(5)
    encoder = Encoder(ENCODER, recording.sampling_rate)
    encoder.add_units([str(unit_id) for unit_id in recording.unit_ids[:NUM_KNOWN]])
    return encoder


def config_of(**options) -> AdaptationConfig:
    """Options of the adaptation, or of its fine-tuning, for fits of a few steps."""
    finetuning = {name: options.pop(name) for name in ("transfer", "embeddings") if name in options}
    config = AdaptationConfig(
        predictability=PredictabilityConfig(min_timesteps=100),
        splits=SPLITS,
        identification=PretrainingConfig(
            training=few_steps(3).training, masked_activity=MaskedActivityConfig(num_queries=8)
        ),
        finetuning=replace(few_steps(3), **finetuning),
    )
    return replace(config, **options)


def embeddings(encoder: Encoder, unit_ids) -> torch.Tensor:
    return encoder.unit_embedding(encoder.unit_rows(list(unit_ids))).detach()


def are_equal(one: Encoder, two: Encoder) -> bool:
    """Whether everything but the unit embeddings is bit-identical."""
    first, second = network_tensors(one), network_tensors(two)
    return all(
        torch.equal(first[name], second[name]) for name in first if "unit_embedding" not in name
    )


# one call ------------------------------------------------------------------------------------


def test_an_encoder_on_disk_is_adapted_to_a_recording_in_one_call(pretrained, recording, tmp_path):
    save_encoder(pretrained, tmp_path)
    decoder, adaptation = adapt(tmp_path, recording, "direction", config_of())
    assert list(adaptation.seconds) == ["choosing units", "finetuning", "scoring"]
    assert all(seconds > 0 for seconds in adaptation.seconds.values())
    assert (adaptation.num_known_units, adaptation.num_units) == (NUM_KNOWN, 8)
    [row] = adaptation.scores
    assert row["recording_id"] == recording.recording_id
    assert (row["arm"], row["units"], row["labels"], row["seed"]) == ("adapted", "all", "100%", 0)
    assert row["chance"] == 1 / 8
    assert set(adaptation.curves) == {"finetuning"}
    [divided] = adaptation.divided
    windows = divided.splits["direction"].test
    assert len(windows) > 0
    assert decoder.predict(recording, torch.arange(4).numpy()).shape == (4, 8)


def test_the_summary_says_how_long_how_many_and_how_well(pretrained, recording):
    _, adaptation = adapt(pretrained, recording, "direction", config_of())
    seconds = {"choosing units": 1.2, "finetuning": 11.4, "scoring": 1.2}
    row = {**adaptation.scores[0], "scores": {"accuracy": 0.906, "balanced_accuracy": 0.9}}
    told = str(replace(adaptation, seconds=seconds, scores=[row]))
    assert told == (
        "Adapted to sim0-Sst-0 in 14 s: 5 of 8 units known, 3 learned; accuracy 0.91 (chance 0.125)"
    )


def test_movies_have_no_chance_level_to_tell(pretrained, recording):
    _, adaptation = adapt(pretrained, recording, "movie_held_out", config_of())
    assert "; ssim 0." in str(adaptation)
    assert "chance" not in str(adaptation)


def test_several_recordings_are_adapted_to_together(pretrained):
    recordings = tiny_observatory()
    _, adaptation = adapt(pretrained, recordings, "direction", config_of())
    assert str(adaptation).startswith("Adapted to sim0-Sst-0, sim0-Cux2-0 in ")
    assert (adaptation.num_known_units, adaptation.num_units) == (NUM_KNOWN, 16)


def test_units_may_be_given(pretrained, recording):
    chosen = [str(unit_id) for unit_id in recording.unit_ids[3:7]]
    _, adaptation = adapt(
        pretrained,
        recording,
        "direction",
        config_of(transfer="units"),
        unit_ids={recording.recording_id: chosen},
    )
    assert (adaptation.num_known_units, adaptation.num_units) == (2, 4)
    assert adaptation.scores[0]["num_known_units"] == 4


def test_a_unit_whose_embedding_is_drawn_anew_is_not_known(pretrained, recording):
    _, adaptation = adapt(pretrained, recording, "direction", config_of(embeddings="reset"))
    assert adaptation.num_known_units == 0


def test_the_same_seed_adapts_to_the_same_decoder(pretrained, recording):
    config = config_of(identify=True, labels=LabelBudget(per_class=2))
    one, two = (adapt(pretrained, recording, "direction", config)[0] for _ in range(2))
    first, second = network_tensors(one.networks[0]), network_tensors(two.networks[0])
    assert all(torch.equal(first[name], second[name]) for name in first)


# unit identification -------------------------------------------------------------------------


def test_identification_learns_embeddings_of_new_units_and_leaves_the_rest_bit_identical(
    pretrained, tiny_recording, tiny_population
):
    encoder = Encoder(ENCODER, 10.0)
    encoder.add_units([f"tiny-{i}" for i in range(4)])
    config = config_of().identification
    still = replace(config, training=replace(config.training, lr=1e-30))
    start, end = (
        identify_units(encoder, tiny_population, options, seed=0) for options in (still, config)
    )
    known = [f"tiny-{i}" for i in range(4)]
    assert are_equal(encoder, end)
    assert torch.equal(embeddings(end, known), embeddings(encoder, known))
    for unit_id in ("tiny-4", "tiny-5"):
        assert not torch.equal(embeddings(end, [unit_id]), embeddings(start, [unit_id]))
    assert list(encoder.unit_embedding.vocab)[1:] == known


def test_identification_learns_from_no_label(pretrained, recording):
    table = recording.stimulus("drifting_gratings").copy()
    table["orientation"] = table["orientation"].sample(frac=1, random_state=0).to_numpy()
    shuffled = replace(recording, stimuli={**recording.stimuli, "drifting_gratings": table})
    config = config_of(identify=True, transfer="probe")
    one, two = (
        adapt(pretrained, session, "direction", config)[0].networks[0].encoder
        for session in (recording, shuffled)
    )
    assert torch.equal(one.unit_embedding.weight, two.unit_embedding.weight)


def test_an_objective_that_learns_from_labels_identifies_no_units(pretrained, recording):
    config = config_of(identify=True)
    with_labels = replace(config.identification, label_weight=0.1)
    with pytest.raises(ValueError, match=r"identification\.label_weight is 0\.1\. Set it to 0"):
        adapt(pretrained, recording, "direction", replace(config, identification=with_labels))


def test_identified_units_count_as_known_in_fine_tuning(pretrained, recording):
    config = config_of(identify=True, transfer="probe")
    decoder, adaptation = adapt(pretrained, recording, "direction", config)
    assert are_equal(decoder.networks[0].encoder, pretrained)
    assert adaptation.num_known_units == NUM_KNOWN
    assert list(adaptation.seconds)[1] == "identification"
    assert set(adaptation.curves) == {"identification", "finetuning"}


@pytest.mark.parametrize("choice", ["reset", "shuffled"])
def test_embeddings_are_exchanged_once_before_identification(pretrained, recording, choice):
    config = config_of(identify=True, transfer="probe", embeddings=choice)
    decoder, _ = adapt(pretrained, recording, "direction", config)
    known = [str(unit_id) for unit_id in recording.unit_ids[:NUM_KNOWN]]
    before = embeddings(pretrained, known)
    after = embeddings(decoder.networks[0].encoder, known)
    distances = torch.cdist(after, before)
    is_someones = (distances == 0).any(dim=1)
    assert not (distances.diagonal() == 0).any()
    assert is_someones.all() if choice == "shuffled" else not is_someones.any()


# what cannot be done -------------------------------------------------------------------------


@pytest.mark.parametrize("identify", [False, True])
def test_an_encoder_of_another_rate_is_refused(recording, identify):
    with pytest.raises(RecordingError, match=r"pretrained at 30\.00 Hz.*sampled at 10\.00 Hz"):
        adapt(Encoder(ENCODER, 30.0), recording, "direction", config_of(identify=identify))


def test_a_probe_needs_units_that_are_known_or_identified(pretrained, recording):
    with pytest.raises(TransferError, match=r"3 units are new to the encoder .*Identify them"):
        adapt(pretrained, recording, "direction", config_of(transfer="probe"))


def test_an_exchange_needs_known_units(recording):
    stranger = Encoder(ENCODER, recording.sampling_rate)
    with pytest.raises(TransferError, match="the encoder knows 0 of 8 units"):
        adapt(stranger, recording, "direction", config_of(embeddings="shuffled"))


def test_a_directory_without_an_encoder_is_refused(recording, tmp_path):
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        adapt(tmp_path, recording, "direction", config_of())


def test_an_unknown_task_or_group_of_units_is_refused(pretrained, recording):
    with pytest.raises(ValueError, match="Unknown task 'smell'"):
        adapt(pretrained, recording, "smell")
    with pytest.raises(ValueError, match="Unknown group of units 'some'"):
        AdaptationConfig(units="some")
