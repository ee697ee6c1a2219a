"""Times CalciumPOYOPlus of torch-brain 0.1.2, the published implementation, as a peer.

It needs an environment of its own, since torch-brain 0.2 dropped the model:

    make peer
    .peer/bin/python benchmarks/peer_calcium_poyo_plus.py --dim 64 --units 174

Prints one line of JSON; ``training_step.py`` says what is measured. The peer's pipeline slices
windows from HDF5 files, makes tokens of them and collates, as its data loader does.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from temporaldata import (  # type: ignore[import-not-found]  # the peer's environment has it
    ArrayDict,
    Data,
    Interval,
    RegularTimeSeries,
)
from torch import Tensor
from torch_brain.data import collate
from torch_brain.models import CalciumPOYOPlus
from torch_brain.registry import MODALITY_REGISTRY
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


def main() -> None:
    setting = Setting(**vars(setting_parser(__doc__).parse_args()))
    imports_megabytes = prepare(setting)
    with tempfile.TemporaryDirectory() as directory:
        recordings = write_recordings(setting, Path(directory))
        model = build_model(setting, recordings)
        draw = batch_maker(setting, model, recordings)
        loss = loss_of(setting, model, draw()["model_inputs"])
        print(json.dumps(measure(setting, model, loss, draw, imports_megabytes)))


def write_recordings(setting: Setting, directory: Path) -> list[Data]:
    """Recordings of noise and of gratings that last half a window, opened lazily."""
    rng = np.random.default_rng(setting.seed)
    length, num_timesteps = setting.window_seconds, RECORDING_WINDOWS * setting.timesteps
    starts = length * np.arange(RECORDING_WINDOWS)
    recordings = []
    for number in range(setting.recordings):
        name = f"recording-{number}"
        domain = Interval(0.0, length * RECORDING_WINDOWS)
        activity = rng.standard_normal((num_timesteps, setting.units), dtype=np.float32)
        data = Data(
            calcium_traces=RegularTimeSeries(df_over_f=activity, sampling_rate=RATE),
            units=ArrayDict(id=np.array([f"{name}/{unit}" for unit in range(setting.units)])),
            drifting_gratings=Interval(
                start=starts,
                end=starts + length / 2,
                timestamps=starts + length / 4,
                orientation_id=rng.integers(0, NUM_CLASSES, len(starts)),
                timekeys=["start", "end", "timestamps"],
            ),
            session=Data(id=name, domain=domain),
            domain=domain,
        )
        path = directory / f"{name}.h5"
        with h5py.File(path, "w") as file:
            data.to_hdf5(file)
        recordings.append(Data.from_hdf5(h5py.File(path), lazy=True))
    return recordings


def build_model(setting: Setting, recordings: list[Data]) -> CalciumPOYOPlus:
    model = CalciumPOYOPlus(
        sequence_length=setting.window_seconds,
        latent_step=setting.window_seconds / setting.latent_steps,
        num_latents_per_step=setting.latents_per_step,
        dim=setting.dim,
        depth=setting.depth,
        dim_head=setting.dim_head,
        cross_heads=setting.cross_heads,
        self_heads=setting.self_heads,
    )
    model.unit_emb.initialize_vocab([name for data in recordings for name in data.units.id])
    model.session_emb.initialize_vocab([data.session.id for data in recordings])
    return model.to(setting.device)


def batch_maker(
    setting: Setting, model: CalciumPOYOPlus, recordings: list[Data]
) -> Callable[[], dict]:
    """Draws windows at random samples, as many from every recording."""
    rng = np.random.default_rng(setting.seed)
    readout = {"multitask_readout": [{"readout_id": READOUT, "metrics": []}]}

    def sample(data: Data) -> dict:
        first = rng.integers((RECORDING_WINDOWS - 1) * setting.timesteps)
        start = (first - 0.25) / RATE if first else 0.0  # so that rounding moves no sample
        window = data.slice(start, start + setting.window_seconds)
        window.config = readout
        return model.tokenize(window)

    def draw() -> dict:
        windows_each = setting.batch // setting.recordings
        return collate([sample(data) for data in recordings for _ in range(windows_each)])

    return draw


def loss_of(setting: Setting, model: CalciumPOYOPlus, inputs: dict) -> Callable[[], Tensor]:
    """Cross-entropy of the answers to the same number of queries in every window."""
    num_tokens = inputs["input_mask"].sum(1)
    if not (num_tokens == setting.timesteps * setting.units).all():
        raise RuntimeError(f"Windows have {num_tokens.tolist()} tokens; they must be alike.")
    inputs = {name: value.to(setting.device) for name, value in inputs.items()}
    device = torch.device(setting.device)
    shape, task = (setting.batch, NUM_QUERIES), MODALITY_REGISTRY[READOUT].id
    inputs |= {
        "output_session_index": torch.ones(shape, dtype=torch.long, device=device),
        "output_timestamps": setting.window_seconds * torch.rand(shape, device=device),
        "output_decoder_index": torch.full(shape, task, device=device),
    }
    target = torch.randint(NUM_CLASSES, (setting.batch * NUM_QUERIES,), device=device)
    return lambda: F.cross_entropy(model(**inputs)[READOUT], target)


if __name__ == "__main__":
    main()
