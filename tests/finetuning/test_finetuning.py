"""Fine-tuning changes what it may, learns from what it may, and does both again the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.finetuning.config import FinetuningConfig, TeacherConfig
from poyo_ssl.finetuning.finetune import choose_labels, finetune
from poyo_ssl.finetuning.teachers import picture_teacher
from poyo_ssl.model.checkpoints import network_tensors
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.training.transfer import TransferError
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_FRAME, MOVIE_HELD_OUT
from tiny_fits import ENCODER, few_steps, fit_arm, setting_of

KNOWN = [f"tiny-{i}" for i in range(4)]
"""Units of the pretrained encoder; tiny-4 and tiny-5 are new to it."""
NEW = ["tiny-4", "tiny-5"]


@pytest.fixture
def pretrained():
    torch.manual_seed(7)
    encoder = Encoder(ENCODER, 10.0)
    encoder.add_units(KNOWN)
    return encoder


def population_of(recording, split_config, *tasks) -> Population:
    divided = divide([recording], list(tasks), split_config)
    return Population(divided, {"tiny": list(recording.unit_ids)})


def adapt(population, encoder, task=DIRECTION, *, transfer="full", embeddings="tracked", **options):
    config = replace(few_steps(**options), transfer=transfer, embeddings=embeddings)
    return finetune(population, task, encoder, config, arm="pretrained", seed=0)


def weights_of(decoder: FittedDecoder) -> dict[str, torch.Tensor]:
    return {**decoder.question.tensors(), **decoder.state()[1]}


def are_identical(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        np.array_equal(one[name].numpy(), two[name].numpy(), equal_nan=True) for name in one
    )


def embeddings(encoder: Encoder, unit_ids: list[str]) -> torch.Tensor:
    return encoder.unit_embedding(encoder.unit_rows(unit_ids)).detach()


# what changes --------------------------------------------------------------------------------


def unchanged_weights(before: Encoder, after: Encoder) -> set[str]:
    """Names of the weights, beside the unit embedding, that are bit-identical."""
    one, two = network_tensors(before), network_tensors(after)
    assert one.keys() == two.keys()
    return {name for name in one if torch.equal(one[name], two[name])}


def weights_beside_units(encoder: Encoder) -> set[str]:
    return set(network_tensors(encoder)) - {"unit_embedding.weight"}


@pytest.mark.parametrize("task", [DIRECTION, MOVIE_FRAME, MOVIE], ids=lambda task: task.name)
@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_unit_identification_leaves_the_encoder_bit_identical(
    tiny_recording, split_config, pretrained, task, optimizer
):
    population = population_of(tiny_recording, split_config, task)
    decoder = adapt(population, pretrained, task, transfer="units", optimizer=optimizer)
    fitted = decoder.networks[0].encoder
    assert unchanged_weights(pretrained, fitted) == weights_beside_units(pretrained)
    assert torch.equal(embeddings(fitted, KNOWN), embeddings(pretrained, KNOWN))


def test_unit_identification_learns_the_embeddings_of_new_units(tiny_population, pretrained):
    still = adapt(tiny_population, pretrained, transfer="units", lr=1e-30)
    learned = adapt(tiny_population, pretrained, transfer="units")
    for unit_id in NEW:
        start, end = (embeddings(d.networks[0].encoder, [unit_id]) for d in (still, learned))
        assert not torch.equal(start, end), unit_id
    assert not torch.equal(still.networks[0].readout.weight, learned.networks[0].readout.weight)


@pytest.mark.parametrize("task", [DIRECTION, MOVIE], ids=lambda task: task.name)
def test_a_probe_learns_a_query_and_a_readout_and_nothing_else(
    tiny_recording, split_config, task, pretrained
):
    pretrained.add_units(NEW)
    population = population_of(tiny_recording, split_config, task)
    still = adapt(population, pretrained, task, transfer="probe", lr=1e-30)
    learned = adapt(population, pretrained, task, transfer="probe")
    assert are_identical(network_tensors(learned.networks[0].encoder), network_tensors(pretrained))
    same = {
        name
        for name, value in network_tensors(learned.networks[0]).items()
        if torch.allclose(value, network_tensors(still.networks[0])[name], rtol=0, atol=1e-20)
    }
    fixed = ("encoder.", "image_decoder.mean_frame", "image_decoder.components")
    assert {name for name in same if not any(word in name for word in fixed)} == set()


def test_a_probe_of_units_that_the_encoder_does_not_know_is_refused(tiny_population, pretrained):
    with pytest.raises(TransferError, match=r"2 units are new .* Identify them first"):
        adapt(tiny_population, pretrained, transfer="probe")


@pytest.mark.parametrize("transfer", ["full", "layerwise"])
def test_a_free_encoder_changes_everywhere(tiny_population, pretrained, transfer):
    fitted = adapt(tiny_population, pretrained, transfer=transfer).networks[0].encoder
    pretrained.add_units(NEW)  # so that shapes agree
    # all but the rotary frequencies, which are no weights
    same = unchanged_weights(pretrained, fitted)
    assert all("rotary" in name for name in same), same
    assert not torch.equal(embeddings(fitted, KNOWN), embeddings(pretrained, KNOWN))


def test_without_decay_layerwise_is_full(tiny_population, pretrained):
    one = adapt(tiny_population, pretrained)
    config = replace(few_steps(), transfer="layerwise", layer_decay=1.0)
    two = finetune(tiny_population, DIRECTION, pretrained, config, arm="pretrained", seed=0)
    assert are_identical(weights_of(one), weights_of(two))


def test_a_layerwise_step_goes_as_far_as_the_decay_says(tiny_population, pretrained):
    """The first step of Adam has the length of its learning rate, whatever the gradient."""
    options = {"max_steps": 1, "ema_decay": None, "patience": None, "weight_decay": 0.0}
    still, full, layerwise = (
        adapt(tiny_population, pretrained, transfer=transfer, **{**options, **lr})
        for transfer, lr in (("full", {"lr": 1e-30}), ("full", {}), ("layerwise", {}))
    )

    def length(decoder, name):
        moved = (
            network_tensors(decoder.networks[0])[name] - network_tensors(still.networks[0])[name]
        )
        return float(moved.abs().max())

    encoder = "reader.encoder."
    for name, rate in {
        "readout.weight": 1.0,
        "reader.query_embedding": 1.0,
        "reader.query_decoder.feedforward.widen.weight": 1.0,
        f"{encoder}process_layers.0.feedforward.widen.weight": 0.5,
        f"{encoder}read_feedforward.widen.weight": 0.25,
        f"{encoder}value_map.weight": 0.25,
        f"{encoder}latent_embedding": 0.25,
    }.items():
        assert length(layerwise, name) == pytest.approx(rate * length(full, name), rel=1e-2), name

    def unit_length(decoder, unit_ids):
        start, end = (embeddings(d.networks[0].encoder, unit_ids) for d in (still, decoder))
        return float((end - start).abs().max())

    for unit_ids, rate in ((KNOWN, 0.25), (NEW, 1.0)):
        assert unit_length(layerwise, unit_ids) == pytest.approx(
            rate * unit_length(full, unit_ids), rel=1e-2
        )


@pytest.mark.parametrize("transfer", ["full", "layerwise", "units"])
def test_the_encoder_passed_in_is_not_changed(tiny_population, pretrained, transfer):
    before = {name: value.clone() for name, value in network_tensors(pretrained).items()}
    adapt(tiny_population, pretrained, transfer=transfer, embeddings="shuffled")
    assert are_identical(network_tensors(pretrained), before)
    assert all(parameter.requires_grad for parameter in pretrained.parameters())
    assert list(pretrained.unit_embedding.vocab)[1:] == KNOWN
    assert pretrained.training


def test_all_of_a_fresh_encoder_learns_whatever_the_way(tiny_population):
    full, units = (
        adapt(tiny_population, ENCODER, transfer=transfer) for transfer in ("full", "units")
    )
    assert are_identical(weights_of(full), weights_of(units))


@pytest.mark.parametrize("task", [DIRECTION, MOVIE], ids=lambda task: task.name)
def test_everything_but_new_units_transfers(tiny_recording, split_config, pretrained, task):
    population = population_of(tiny_recording, split_config, task)
    # a step too small to change anything but exact zeros
    start = adapt(population, pretrained, task, max_steps=1, lr=1e-30).networks[0].encoder
    before, after = network_tensors(pretrained), network_tensors(start)
    for name in before.keys() - {"unit_embedding.weight"}:
        assert torch.allclose(before[name], after[name], rtol=0, atol=1e-20), name
    assert torch.equal(embeddings(start, KNOWN), embeddings(pretrained, KNOWN))
    assert list(start.unit_embedding.vocab)[1:] == KNOWN + NEW
    activity = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0))
    pretrained.eval()
    assert torch.equal(
        start(activity, start.unit_rows(KNOWN)),
        pretrained(activity, pretrained.unit_rows(KNOWN)),
    )


# same seed, same result ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "arm"),
    [(DIRECTION, "scratch"), (DIRECTION, "scratch + teacher"), (MOVIE_HELD_OUT, "scratch")],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_same_seed_gives_the_same_decoder(tiny_population, task, arm):
    one, two = (weights_of(fit_arm(arm, setting_of(tiny_population, task))) for _ in range(2))
    assert are_identical(one, two)
    other = weights_of(fit_arm(arm, setting_of(tiny_population, task, seed=1)))
    assert not are_identical(one, other)


def test_a_fit_does_not_depend_on_what_was_drawn_before(tiny_population):
    one = fit_arm("scratch", setting_of(tiny_population, DIRECTION))
    torch.rand(100)
    np.random.default_rng().random(100)
    two = fit_arm("scratch", setting_of(tiny_population, DIRECTION))
    assert are_identical(weights_of(one), weights_of(two))


# what is learned from ------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [0.1, 0.3, 1.0])
def test_network_teacher_and_reference_decoders_share_their_labels(
    tiny_population, tiny_divided, tiny_encoder, labels
):
    setting = setting_of(tiny_population, DIRECTION, labels=labels, seed=3)
    num_timesteps = setting.num_timesteps
    sources = tiny_population.labelled_sources(tiny_encoder, DIRECTION, "train", num_timesteps)
    [chosen] = choose_labels(sources, labels, 3)
    windows = setting.training_windows(tiny_divided)
    assert np.array_equal(chosen.windows.first_timestep, windows.first_timestep)
    assert np.array_equal(chosen.windows.target, windows.target)
    assert set(windows.target) == {0, 1, 2, 3}
    assert len(windows) == pytest.approx(labels * len(sources[0]), abs=3)


def with_other_labels_swapped(recording, setting):
    """The recording with the labels of neighbouring unchosen training trials exchanged.

    Neighbours, so that every class keeps its order, on which the choice of labels depends.
    """
    [divided] = setting.population.divided
    every = setting.population.divided.windows(divided, DIRECTION, "train", setting.num_timesteps)
    chosen = np.isin(every.first_timestep, setting.training_windows(divided).first_timestep)
    table = recording.stimulus("drifting_gratings").copy()
    row = {first: i for i, first in enumerate(recording.timestep_at(table["start"] + 0.3))}
    num_swapped, place = 0, 0
    while place + 1 < len(every):
        if not chosen[place : place + 2].any() and every.target[place] != every.target[place + 1]:
            pair = [row[first] for first in every.first_timestep[place : place + 2]]
            column = table.columns.get_loc("orientation")
            table.iloc[pair, column] = table.iloc[pair[::-1], column].to_numpy()
            num_swapped += 1
            place += 1
        place += 1
    assert num_swapped >= 3
    return replace(recording, stimuli={**recording.stimuli, "drifting_gratings": table})


@pytest.mark.parametrize("arm", ["ridge", "logistic", "scratch", "scratch + teacher"])
def test_labels_beyond_the_label_fraction_change_nothing(tiny_recording, split_config, arm):
    def fitted(recording, labels):
        population = population_of(recording, split_config, DIRECTION)
        return fit_arm(arm, setting_of(population, DIRECTION, labels=labels))

    population = population_of(tiny_recording, split_config, DIRECTION)
    swapped = with_other_labels_swapped(
        tiny_recording, setting_of(population, DIRECTION, labels=0.25)
    )
    few = weights_of(fitted(tiny_recording, 0.25))
    assert are_identical(few, weights_of(fitted(swapped, 0.25)))
    # with all labels they matter
    assert not are_identical(
        weights_of(fitted(tiny_recording, 1.0)), weights_of(fitted(swapped, 1.0))
    )


@pytest.mark.parametrize(
    ("task", "arm"),
    [
        (DIRECTION, "ridge"),
        (DIRECTION, "ridge, time bins"),
        (DIRECTION, "logistic"),
        (DIRECTION, "scratch"),
        (DIRECTION, "scratch + teacher"),
        (MOVIE_FRAME, "nearest frame"),
        (MOVIE_FRAME, "frame filter"),
        (MOVIE_FRAME, "scratch + look-up teacher"),
        (MOVIE_HELD_OUT, "ridge to pixels"),
        (MOVIE_HELD_OUT, "scratch"),
        (MOVIE_HELD_OUT, "scratch + teacher"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_activity_of_the_test_part_does_not_reach_the_fitted_decoder(
    tiny_recording, split_config, rng, task, arm
):
    def fitted(recording):
        population = population_of(recording, split_config, task)
        return weights_of(fit_arm(arm, setting_of(population, task)))

    [divided] = divide([tiny_recording], [task], split_config)
    changed = tiny_recording.df_over_f.copy()
    is_test = tiny_recording.is_inside(divided.splits[task.name].test)
    changed[is_test] = 100 * rng.normal(size=(is_test.sum(), 6))
    assert are_identical(fitted(tiny_recording), fitted(replace(tiny_recording, df_over_f=changed)))


@pytest.mark.parametrize("arm", ["mean frame", "ridge to pixels", "scratch", "scratch + teacher"])
def test_held_out_pictures_do_not_reach_the_fitted_decoder(tiny_recording, split_config, arm):
    def fitted(recording):
        population = population_of(recording, split_config, MOVIE_HELD_OUT)
        return weights_of(fit_arm(arm, setting_of(population, MOVIE_HELD_OUT)))

    [divided] = divide([tiny_recording], [MOVIE_HELD_OUT], split_config)
    table = tiny_recording.stimulus("natural_movie_one")
    held_out = [
        table["movie_frame"][(table["start"] >= start) & (table["end"] <= end + 1e-6)]
        for start, end in divided.splits["movie_held_out"].test
    ]
    pictures = tiny_recording.templates["natural_movie_one"].copy()
    pictures[np.unique(np.concatenate(held_out))] = 0
    changed = replace(tiny_recording, templates={"natural_movie_one": pictures})
    assert are_identical(fitted(tiny_recording), fitted(changed))


def test_a_picture_teacher_scores_training_windows_as_wrongly_as_new_frames(
    tiny_population, tiny_divided
):
    setting = setting_of(tiny_population, MOVIE_HELD_OUT)
    teacher = picture_teacher(setting)
    windows = setting.training_windows(tiny_divided)
    features = setting.features(tiny_divided, windows, 5)
    own = teacher.pixels.readout.scores(features, setting.unit_ids(tiny_divided))
    scores = teacher.training_scores["tiny"]
    assert scores.shape == own.shape
    flat = tiny_population.divided.pictures(MOVIE_HELD_OUT).numpy()[windows.target]
    components = teacher.pixels.components.reshape(len(own[0]), -1)
    true = (flat - teacher.pixels.mean_picture).reshape(len(flat), -1) @ components.T
    assert np.mean((scores - true) ** 2) > np.mean((own - true) ** 2)


# learning ------------------------------------------------------------------------------------


def test_a_network_learns_directions_that_units_prefer(tiny_population, tiny_divided):
    config = few_steps(120, valid_every=20, lr=5e-3)
    decoder = fit_arm("scratch", setting_of(tiny_population, DIRECTION, config=config))
    windows = tiny_population.divided.windows(tiny_divided, DIRECTION, "test", 20)
    answers = decoder.predict(tiny_divided.recording, windows.first_timestep)
    assert np.mean(answers.argmax(axis=1) == windows.target) > 0.75


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="unlabelled_fraction must lie in"):
        TeacherConfig(unlabelled_fraction=1.0)


def test_the_more_labels_the_fewer_windows_a_teacher_answers():
    config = TeacherConfig()
    assert [config.num_taught(32, n) for n in (1, 300, 3_000)] == [16, 8, 0]
    assert TeacherConfig(unlabelled_fraction=0.25).num_taught(32, 3_000) == 8
    assert TeacherConfig(unlabelled_fraction=0.0).num_taught(32, 1) == 0
    assert TeacherConfig(unlabelled_fraction=0.99).num_taught(32, 1) == 31
    with pytest.raises(ValueError, match="temperature must be positive"):
        TeacherConfig(temperature=0.0)
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        FinetuningConfig(label_smoothing=1.0)
    with pytest.raises(ValueError, match="num_queries"):
        FinetuningConfig(num_queries=0)
    with pytest.raises(ValueError, match="must be one of full, layerwise, units, weights, probe"):
        FinetuningConfig(transfer="half")
    with pytest.raises(ValueError, match="embeddings must be one of tracked, reset, shuffled"):
        FinetuningConfig(embeddings="kept")
    with pytest.raises(ValueError, match="layer_decay must lie in"):
        FinetuningConfig(layer_decay=0.0)


# starting from a decoder ---------------------------------------------------------------------


def answers(decoder, recording):
    return decoder.predict(recording, np.arange(40, 400, 7))


def test_a_decoder_goes_on_from_its_own_answers(tiny_population, tiny_recording):
    config = replace(few_steps(12, lr=0.02), members=2)
    first = finetune(tiny_population, DIRECTION, ENCODER, config, seed=3)
    still = replace(few_steps(1, lr=1e-30, patience=None), members=2)
    second = finetune(tiny_population, DIRECTION, first, still, seed=9)
    assert second.question.arm == "pretrained"
    np.testing.assert_allclose(
        answers(second, tiny_recording), answers(first, tiny_recording), atol=1e-5
    )
    four = finetune(tiny_population, DIRECTION, first, replace(still, members=4), seed=9)
    np.testing.assert_allclose(
        answers(four, tiny_recording), answers(first, tiny_recording), atol=1e-5
    )


def test_a_decoder_of_other_answers_gives_query_and_encoder_alone(
    tiny_recording, split_config, tiny_population
):
    first = finetune(tiny_population, DIRECTION, ENCODER, few_steps(5), seed=3)
    population = population_of(tiny_recording, split_config, MOVIE_FRAME)
    still = few_steps(1, lr=1e-30, patience=None)
    second = finetune(population, MOVIE_FRAME, first, still, seed=9)
    one, two = (decoder.networks[0] for decoder in (first, second))
    assert torch.equal(one.reader.query_embedding, two.reader.query_embedding)
    assert torch.equal(one.encoder.latent_embedding, two.encoder.latent_embedding)
    assert one.readout.weight.shape != two.readout.weight.shape
