"""Networks that learn side by side become what they would have become alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.teachers import label_teacher, picture_teacher
from poyo_ssl.model.checkpoints import network_tensors
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.training.members import member_seeds
from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_FRAME
from tiny_fits import ENCODER, few_steps, setting_of

FIRST = np.arange(40, 400, 7)
SEED = 5


def population_of(recording, split_config, *tasks) -> Population:
    divided = divide([recording], list(tasks), split_config)
    return Population(divided, {"tiny": list(recording.unit_ids)})


def config_of(members: int, **options) -> FinetuningConfig:
    training = {"valid_every": 2, "patience": 1, "lr": 0.02} | options
    return replace(few_steps(12, **training), members=members)


def teacher_of(population, task, kind):
    setting = setting_of(population, task)
    return {"none": lambda _: None, "label": label_teacher, "picture": picture_teacher}[kind](
        setting
    )


CASES = [
    pytest.param(DIRECTION, "none", False, {}, id="from scratch"),
    pytest.param(DIRECTION, "label", False, {}, id="with a teacher"),
    pytest.param(DIRECTION, "none", True, {}, id="pretrained"),
    pytest.param(DIRECTION, "none", False, {"accumulate": 2}, id="in parts"),
    pytest.param(DIRECTION, "none", False, {"patience": None}, id="never stopping"),
    pytest.param(MOVIE_FRAME, "none", False, {}, id="frames"),
    pytest.param(MOVIE, "picture", False, {}, id="pictures"),
]


@pytest.mark.parametrize(("task", "teacher", "is_pretrained", "options"), CASES)
def test_members_are_four_separate_fits(
    tiny_recording, split_config, task, teacher, is_pretrained, options
):
    population = population_of(tiny_recording, split_config, task)
    taught = teacher_of(population, task, teacher)
    encoder = None
    if is_pretrained:
        torch.manual_seed(1)
        encoder = Encoder(ENCODER, 10.0)
        encoder.add_units(population.unit_ids[:3])
    start = encoder or ENCODER

    def fit(members: int, seed: int):
        config = config_of(members, **options)
        return finetune(population, task, start, config, seed=seed, teacher=taught)

    together = fit(4, SEED)
    apart = [fit(1, seed) for seed in member_seeds(SEED, 4)]
    for member, alone in zip(together.networks, apart, strict=True):
        one, two = network_tensors(member), network_tensors(alone.networks[0])
        for name, value in one.items():
            torch.testing.assert_close(value, two[name], rtol=1e-5, atol=1e-5, msg=name)
    assert not torch.equal(*(n.encoder.latent_embedding for n in together.networks[:2])) or (
        is_pretrained and options == {}
    )


def test_members_answer_by_the_mean_of_their_log_probabilities(tiny_recording, split_config):
    population = population_of(tiny_recording, split_config, DIRECTION)
    together = finetune(population, DIRECTION, ENCODER, config_of(3), seed=SEED)
    alone = [type(together)(together.question, [network]) for network in together.networks]
    logits = [torch.from_numpy(decoder.predict(tiny_recording, FIRST)) for decoder in alone]
    expected = torch.stack([values.log_softmax(1) for values in logits]).mean(0)
    expected -= expected.mean(1, keepdim=True)
    np.testing.assert_allclose(together.predict(tiny_recording, FIRST), expected, atol=1e-5)


def test_members_are_saved_and_loaded(tiny_recording, split_config, tmp_path):
    population = population_of(tiny_recording, split_config, DIRECTION)
    decoder = finetune(population, DIRECTION, ENCODER, config_of(3), seed=SEED)
    decoder.save(tmp_path)
    loaded = load_decoder(tmp_path)
    assert len(loaded.networks) == 3
    answers = (d.predict(tiny_recording, FIRST) for d in (decoder, loaded))
    np.testing.assert_array_equal(*answers)


def test_a_decoder_of_before_there_were_members_loads(tiny_recording, split_config, tmp_path):
    population = population_of(tiny_recording, split_config, DIRECTION)
    decoder = finetune(population, DIRECTION, ENCODER, config_of(1), seed=SEED)
    decoder.save(tmp_path)
    tensors = load_file(tmp_path / "weights.safetensors")
    old = {name.replace("network.0.", "network."): value for name, value in tensors.items()}
    save_file(old, tmp_path / "weights.safetensors")
    path = tmp_path / "config.json"
    config = path.read_text().replace('"members": 1', '"unknown": 1')
    path.write_text(config.replace('"kind": "label network"', '"kind": "network"'))
    assert '"kind": "network"' in path.read_text()
    answers = (d.predict(tiny_recording, FIRST) for d in (decoder, load_decoder(tmp_path)))
    np.testing.assert_array_equal(*answers)


def test_members_go_on_where_they_were_stopped(tiny_recording, split_config, tmp_path, monkeypatch):
    population = population_of(tiny_recording, split_config, DIRECTION)
    config = config_of(3, checkpoint_every=1)
    whole = finetune(population, DIRECTION, ENCODER, config, seed=SEED)

    class StopError(Exception):
        pass

    def stop(self, *args) -> None:
        if self.global_step == 6:
            raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(WindowModule, "on_before_zero_grad", stop)
        with pytest.raises(StopError):
            finetune(
                population, DIRECTION, ENCODER, config, seed=SEED, checkpoint_directory=tmp_path
            )
    gone_on = finetune(
        population, DIRECTION, ENCODER, config, seed=SEED, checkpoint_directory=tmp_path
    )
    for one, two in zip(whole.networks, gone_on.networks, strict=True):
        for name, value in network_tensors(one).items():
            assert torch.equal(value, network_tensors(two)[name]), name


def test_no_member_is_refused():
    with pytest.raises(ValueError, match="members must be at least 1, got 0"):
        FinetuningConfig(members=0)
