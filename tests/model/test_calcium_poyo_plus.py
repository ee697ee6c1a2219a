"""Published weights give published outputs; what is no such file says so."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from poyo_ssl.model.calcium_poyo_plus import (
    READOUTS,
    CalciumPOYOPlus,
    CalciumPOYOPlusConfig,
    MultitaskReadout,
    load_calcium_poyo_plus,
)
from poyo_ssl.model.checkpoints import CheckpointError

BESIDE_THE_CHECKOUT = "../shared/data/calcium_poyo_plus_golden.safetensors"
"""Weights of CalciumPOYOPlus, with inputs and outputs of torch-brain 0.1.2."""
INPUTS = (
    "df_over_f",
    "timestamps",
    "unit_index",
    "session_index",
    "query_task_id",
    "query_timestamps",
)
TASKS = {name: task for task, name in enumerate(READOUTS, start=1)}


@pytest.fixture(scope="session")
def published_path() -> Path:
    default = Path(__file__).resolve().parents[2] / BESIDE_THE_CHECKOUT
    path = Path(os.environ.get("POYO_SSL_GOLDEN", default))
    if not path.is_file():
        pytest.skip(f"no weights and outputs of the published model at {path}")
    return path


@pytest.fixture(scope="session")
def published(published_path: Path) -> dict[str, Tensor]:
    """Tensors named ``inputs.*``, ``outputs.*`` and ``weights.*``."""
    return load_file(published_path)


@pytest.fixture(scope="session")
def of_published_weights(
    published_path: Path, published: dict[str, Tensor]
) -> tuple[CalciumPOYOPlus, dict[str, Tensor]]:
    """Our model with the published weights, and its outputs under the published names."""
    model = load_calcium_poyo_plus(published_path).eval()
    inputs = {name: published[f"inputs.{name}"] for name in INPUTS}
    return model, run(model, **inputs)


@torch.no_grad()
def run(
    model: CalciumPOYOPlus,
    df_over_f: Tensor,
    timestamps: Tensor,
    unit_index: Tensor,
    session_index: Tensor,
    query_task_id: Tensor,
    query_timestamps: Tensor,
) -> dict[str, Tensor]:
    task_id = query_task_id.expand_as(query_timestamps)
    latents = model.encode(df_over_f, timestamps, unit_index)
    answers = model.answer(model.process(latents), session_index, task_id, query_timestamps)
    read = model(df_over_f, timestamps, unit_index, session_index, task_id, query_timestamps)
    return {"latents_after_encoder": latents, "query_embeddings": answers} | read


def test_published_weights_give_the_published_outputs(published, of_published_weights):
    _, ours = of_published_weights
    theirs = {
        name.removeprefix("outputs."): tensor
        for name, tensor in published.items()
        if name.startswith("outputs.")
    }
    assert {"latents_after_encoder", "query_embeddings"} <= theirs.keys() <= ours.keys()
    for name, their in theirs.items():
        assert ours[name].shape == their.shape, name
        assert float((ours[name] - their).abs().max()) <= 1e-5, name
        assert their.std() > 0, name


def test_published_weights_have_the_sizes_they_were_saved_with(
    published_path, of_published_weights
):
    with safe_open(published_path, "pt") as file:
        saved = json.loads(file.metadata()["config"])
    config = of_published_weights[0].config
    assert saved == {name: getattr(config, name) for name in saved}
    assert {"sequence_length", "latent_step", "dim", "depth"} <= saved.keys()


def test_latents_lie_where_the_published_ones_do(published, of_published_weights):
    model, _ = of_published_weights
    times = model.latent_times()
    assert len(times) == len(published["outputs.latents_after_encoder"][0])
    torch.testing.assert_close(times.unique(), published["inputs.latent_timestamps"].unique())


def test_a_fresh_model_rotates_at_the_published_frequencies(published, of_published_weights):
    fresh = CalciumPOYOPlus(of_published_weights[0].config, num_units=1, num_sessions=1)
    torch.testing.assert_close(fresh.rotary_emb.omega, published["weights.rotary_emb.omega"])


def small(readouts: dict[str, int] | None = None, **sizes: float) -> CalciumPOYOPlus:
    """A small model with random weights, none of them zero."""
    torch.manual_seed(0)
    defaults = {"dim": 8, "dim_head": 8, "depth": 1, "num_latents_per_step": 2, "cross_heads": 1}
    config = CalciumPOYOPlusConfig(**defaults | {"self_heads": 2} | sizes)
    readouts = readouts or {"running_speed": 1, "drifting_gratings_orientation": 8}
    model = CalciumPOYOPlus(config, num_units=6, num_sessions=3, readouts=readouts)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def questions(seed: int = 0) -> dict[str, Tensor]:
    """Three windows of five units and four questions about each."""
    generator = torch.Generator().manual_seed(seed)
    tasks = [TASKS["running_speed"], TASKS["drifting_gratings_orientation"]]
    return {
        "df_over_f": torch.randn(3, 6, 5, generator=generator),
        "timestamps": torch.arange(6) / 6,
        "unit_index": torch.tensor([1, 5, 2, 4, 3]),
        "session_index": torch.tensor([[1], [2], [1]]).expand(-1, 4),
        "query_task_id": torch.tensor(tasks)[torch.randint(2, (3, 4), generator=generator)],
        "query_timestamps": torch.rand(3, 4, generator=generator),
    }


def save(model: CalciumPOYOPlus, path: Path, prefix: str = "", **changes: Tensor | None) -> Path:
    """Saves the weights; a change of None leaves a tensor out."""
    tensors = {k: v for k, v in (model.state_dict() | changes).items() if v is not None}
    times = {name: getattr(model.config, name) for name in ("sequence_length", "latent_step")}
    save_file(
        {prefix + name: tensor.contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"config": json.dumps(times)},
    )
    return path


@pytest.mark.parametrize("prefix", ["", "weights."])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"depth": 0},
        {"depth": 11, "dim": 4},
        {"cross_heads": 3, "self_heads": 1, "dim_head": 12},
        {"num_latents_per_step": 1, "sequence_length": 2.0, "latent_step": 0.5},
    ],
    ids=str,
)
def test_a_model_of_any_size_comes_back_from_its_tensors(tmp_path, prefix, sizes):
    model = small(**sizes)
    loaded = load_calcium_poyo_plus(save(model, tmp_path / "m.safetensors", prefix)).eval()
    is_known = {"self_heads"} if sizes.get("depth") == 0 else set()  # no tensor tells it then
    for name in vars(model.config).keys() - is_known:
        assert getattr(loaded.config, name) == getattr(model.config, name), name
    assert loaded.state_dict().keys() == model.state_dict().keys()
    ours, theirs = run(model, **questions()), run(loaded, **questions())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_tensors_beside_prefixed_weights_are_left_alone(tmp_path):
    model = small()
    tensors = {f"weights.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(tensors | {"inputs.df_over_f": torch.zeros(2)}, tmp_path / "m.safetensors")
    loaded = load_calcium_poyo_plus(tmp_path / "m.safetensors")
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", small().state_dict())
def test_a_missing_tensor_is_named(tmp_path, name):
    path = save(small(), tmp_path / "m.safetensors", **{name: None})
    layer = re.escape(name.removesuffix(".bias"))  # a readout is known by its bias
    with pytest.raises(CheckpointError, match=rf"m\.safetensors'.*{layer}.*Save all tensors"):
        load_calcium_poyo_plus(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stowaway": torch.zeros(1)}, "stowaway"),
        ({"readout.projections.mood.bias": torch.zeros(2)}, "no readout mood; there are cursor"),
        ({"dec_atn.to_q.weight": torch.zeros(3, 8)}, r"dec_atn\.to_q\.weight"),
        ({"unit_emb.weight": torch.zeros(())}, "0-d tensor"),
        ({"latent_emb.weight": torch.zeros(3)}, "unpack"),
        ({"rotary_emb.omega": torch.zeros(0)}, "zero"),
        ({"rotary_emb.omega": torch.zeros(3)}, "multiple of 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors_of_another_model_are_refused(tmp_path, changes, reason):
    path = save(small(), tmp_path / "m.safetensors", **changes)
    with pytest.raises(CheckpointError, match=rf"m\.safetensors'.*{reason}.*Save all tensors"):
        load_calcium_poyo_plus(path)


@pytest.mark.parametrize(
    "config",
    ["{", "null", "7", '{"latent_step": 0}', '{"latent_step": "x"}', '{"latent_step": NaN}'],
)
def test_times_that_are_none_are_refused(tmp_path, config):
    path = tmp_path / "m.safetensors"
    save_file(small().state_dict(), path, metadata={"config": config})
    with pytest.raises(CheckpointError, match=r"m\.safetensors' does not load"):
        load_calcium_poyo_plus(path)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def no_safetensors(content: bytes) -> bytes:
    return b"weights" + content


def nothing(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, no_safetensors, nothing])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, damage: Callable[[bytes], bytes]):
    path = save(small(), tmp_path / "m.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"m\.safetensors' is damaged or no.*Copy or save"):
        load_calcium_poyo_plus(path)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "."])
def test_a_file_that_does_not_exist_is_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"no file .*Give a safetensors file"):
        load_calcium_poyo_plus(tmp_path / name)


def test_the_default_model_is_the_published_one_of_1_3_million_parameters():
    model = CalciumPOYOPlus(CalciumPOYOPlusConfig(), num_units=4, num_sessions=2)
    count = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith(("unit_emb", "session_emb", "readout"))
    )
    assert count == 1_255_232


def test_readouts_are_read_in_row_major_order_and_padding_is_ignored():
    model = small()
    speed, orientation = TASKS["running_speed"], TASKS["drifting_gratings_orientation"]
    task_id = torch.tensor([[0, speed, orientation], [speed, 0, 0], [orientation, orientation, 99]])
    answers = torch.randn(3, 3, 8, generator=torch.Generator().manual_seed(1))
    read = model.readout(answers, task_id)
    assert read.keys() == {"running_speed", "drifting_gratings_orientation"}
    asked = {
        "running_speed": [answers[0, 1], answers[1, 0]],
        "drifting_gratings_orientation": [answers[0, 2], answers[2, 0], answers[2, 1]],
    }
    for name, rows in asked.items():
        wanted = model.readout.projections[name](torch.stack(rows))
        torch.testing.assert_close(read[name], wanted)


def test_padded_questions_do_not_change_the_answers_to_others():
    model, asked = small(), questions()
    padded = asked | {"query_task_id": asked["query_task_id"].clone()}
    padded["query_task_id"][:, 2] = 0
    before, after = run(model, **asked), run(model, **padded)
    for name in ("running_speed", "drifting_gratings_orientation"):
        is_kept = torch.tensor([True, True, False, True]).expand(3, 4)
        of_task = is_kept[asked["query_task_id"] == TASKS[name]]
        torch.testing.assert_close(after[name], before[name][of_task])


def test_a_readout_that_is_no_task_is_refused():
    with pytest.raises(ValueError, match="There is no readout mood; there are cursor_velocity_2d"):
        MultitaskReadout(dim=8, readouts={"mood": 3})


@pytest.mark.parametrize("times", [{"latent_step": 0.0}, {"sequence_length": -1.0}])
def test_windows_without_length_are_refused(times):
    with pytest.raises(ValueError, match="positive numbers of seconds"):
        CalciumPOYOPlusConfig(**times)


@torch.no_grad()
def test_the_order_of_units_changes_nothing():
    model, asked = small(), questions()
    order = torch.tensor([4, 2, 0, 1, 3])
    shuffled = asked | {
        "df_over_f": asked["df_over_f"][..., order],
        "unit_index": asked["unit_index"][order],
    }
    before, after = run(model, **asked), run(model, **shuffled)
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=1e-5, rtol=1e-5)


def test_windows_of_several_recordings_are_processed_together():
    model, one, other = small(), questions(0), questions(1)
    latents = [model.encode(q["df_over_f"], q["timestamps"], q["unit_index"]) for q in (one, other)]
    together = model.process(torch.cat(latents))
    torch.testing.assert_close(together[3:], model.process(latents[1]))


def test_every_parameter_that_is_read_learns():
    model, asked = small().train(), questions()
    asked["task_id"], asked["query_times"] = (
        asked.pop("query_task_id"),
        asked.pop("query_timestamps"),
    )
    sum(read.square().sum() for read in model(**asked).values()).backward()
    learned = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert dict(model.named_parameters()).keys() - learned == {"token_type_emb.weight"}
