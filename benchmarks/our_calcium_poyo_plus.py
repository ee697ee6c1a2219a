"""Times our CalciumPOYOPlus (the published function) or our default encoder with a readout.

    python benchmarks/our_calcium_poyo_plus.py --model CalciumPOYOPlus --dim 64 --units 174

Prints one line of JSON; ``training_step.py`` says what is measured. Our pipeline gathers windows
from normalised activity in memory, as our training does.
"""

import json
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_step import (
    NUM_CLASSES,
    NUM_QUERIES,
    RATE,
    READOUT,
    RECORDING_WINDOWS,
    Setting,
    measure,
    prepare,
    setting_parser,
)

from poyo_ssl.model.calcium_poyo_plus import READOUTS, CalciumPOYOPlus, CalciumPOYOPlusConfig
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.readouts import LabelDecoder
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.training_batches import TrainingBatches, WindowBatch, WindowSource

DEFAULT_LATENT_STEPS = 2
"""Latent time steps of the default encoder in a window of a second, kept in longer ones."""

Groups = list[WindowBatch]
"""The windows of a step, by recording."""


def main() -> None:
    parser = setting_parser(__doc__)
    parser.add_argument("--model", choices=list(MODELS), default="CalciumPOYOPlus")
    options = vars(parser.parse_args())
    build = MODELS[options.pop("model")]
    setting = Setting(**options)
    imports_megabytes = prepare(setting)
    sources = invent_recordings(setting)
    model, loss = build(setting, equal_groups(setting, sources))
    draw = batch_maker(setting, sources)
    print(json.dumps(measure(setting, model, loss, draw, imports_megabytes)))


def invent_recordings(setting: Setting) -> list[WindowSource]:
    """Noise; unit embeddings start at row 1, since row 0 is for unknown units."""
    num_timesteps = RECORDING_WINDOWS * setting.timesteps
    first_timestep = np.arange((RECORDING_WINDOWS - 1) * setting.timesteps)
    return [
        WindowSource(
            activity=Activity(
                recording_id=f"recording-{number}",
                values=torch.randn(num_timesteps, setting.units),
                unit_ids=[f"recording-{number}/{unit}" for unit in range(setting.units)],
            ),
            unit_index=1 + number * setting.units + torch.arange(setting.units),
            windows=TaskWindows(
                first_timestep=first_timestep,
                num_timesteps=setting.timesteps,
                target=first_timestep % NUM_CLASSES,
            ),
            may_start=np.ones(len(first_timestep), dtype=bool),
        )
        for number in range(setting.recordings)
    ]


def equal_groups(setting: Setting, sources: list[WindowSource]) -> Groups:
    """A batch on the device with as many windows from every recording."""
    index = np.arange(setting.batch // setting.recordings)
    groups = [source.batch(index, np.zeros_like(index)) for source in sources]
    for group in groups:
        group.activity = group.activity.to(setting.device)
        group.unit_index = group.unit_index.to(setting.device)
        group.target = group.target.to(setting.device)
    return groups


def batch_maker(setting: Setting, sources: list[WindowSource]) -> Callable[[], Groups]:
    """Draws windows at random samples, as our training does; no unit is left out."""
    batches = iter(
        TrainingBatches(
            sources,
            batch_size=setting.batch,
            seed=setting.seed,
            jitter=round(0.2 * RATE),
            unit_dropout=0.0,
        )
    )
    return lambda: next(batches)


def calcium_poyo_plus(setting: Setting, groups: Groups) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The published function; a window is asked as often as the peer's."""
    config = CalciumPOYOPlusConfig(
        sequence_length=setting.window_seconds,
        latent_step=setting.window_seconds / setting.latent_steps,
        num_latents_per_step=setting.latents_per_step,
        dim=setting.dim,
        depth=setting.depth,
        dim_head=setting.dim_head,
        cross_heads=setting.cross_heads,
        self_heads=setting.self_heads,
    )
    model = CalciumPOYOPlus(
        config,
        num_units=1 + setting.recordings * setting.units,
        num_sessions=1 + setting.recordings,
    ).to(setting.device)
    device = torch.device(setting.device)
    shape, task = (setting.batch, NUM_QUERIES), 1 + list(READOUTS).index(READOUT)
    session_index = torch.ones(shape, dtype=torch.long, device=device)
    task_id = torch.full(shape, task, device=device)
    query_times = setting.window_seconds * torch.rand(shape, device=device)
    timestamps = torch.arange(setting.timesteps, device=device) / RATE
    target = torch.randint(NUM_CLASSES, (setting.batch * NUM_QUERIES,), device=device)

    def loss() -> Tensor:
        read = [model.encode(group.activity, timestamps, group.unit_index) for group in groups]
        latents = model.process(torch.cat(read))
        answers = model.answer(latents, session_index, task_id, query_times)
        return F.cross_entropy(model.readout(answers, task_id)[READOUT], target)

    return model, loss


def default_encoder(setting: Setting, groups: Groups) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Our defaults at the given dim, one query and eight classes, trained as in ``finetune``."""
    config = EncoderConfig(
        dim=setting.dim, latent_step=setting.window_seconds / DEFAULT_LATENT_STEPS
    )
    encoder = Encoder(config, RATE)
    encoder.add_units([str(row) for row in range(setting.recordings * setting.units)])
    model = LabelDecoder(
        encoder, num_classes=NUM_CLASSES, query_time=setting.window_seconds / 2
    ).to(setting.device)

    def loss() -> Tensor:
        logits = model(*(group.windows for group in groups))
        return F.cross_entropy(logits, torch.cat([group.target for group in groups]))

    return model, loss


MODELS = {"CalciumPOYOPlus": calcium_poyo_plus, "Encoder": default_encoder}

if __name__ == "__main__":
    main()
