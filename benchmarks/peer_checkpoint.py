"""Writes a tiny checkpoint of CalciumPOYOPlus with torch-brain 0.1.2 itself, and its outputs.

    make peer
    .peer/bin/pip install lightning
    .peer/bin/python benchmarks/peer_checkpoint.py tests/data/calcium_poyo_plus

The checkpoint is what the published training script leaves behind: Lightning wraps the model,
keeps the whole config as hyperparameters, its loops, and a vocabulary of numpy text. It
reads windows of invented recordings, prepared by torch-brain's own tokenizer; the inputs on a grid
and the outputs go beside it as safetensors.
"""

import sys
from pathlib import Path

import lightning as L
import numpy as np
import torch
from safetensors.torch import save_file
from temporaldata import (  # type: ignore[import-not-found]  # the peer's environment has it
    ArrayDict,
    Data,
    Interval,
    RegularTimeSeries,
)
from torch_brain.data import collate
from torch_brain.models import CalciumPOYOPlus
from torch_brain.registry import MODALITY_REGISTRY

READOUTS = {
    "drifting_gratings_orientation": "orientation_id",
    "drifting_gratings_temporal_frequency": "temporal_frequency_id",
}
MODEL = {
    "sequence_length": 1.5, "latent_step": 0.25, "num_latents_per_step": 2, "dim": 8, "depth": 1,
    "dim_head": 8, "cross_heads": 1, "self_heads": 2, "ffn_dropout": 0.2, "lin_dropout": 0.4,
    "atn_dropout": 0.0,
}  # fmt: skip
CONFIG = {
    "model": {"_target_": "torch_brain.models.CalciumPOYOPlus", **MODEL},
    "dataset": [{"config": {"multitask_readout": [{"readout_id": name} for name in READOUTS]}}],
    "optim": {"base_lr": 1e-3},
    "seed": 0,
}
SESSIONS = ("500000001", "500000002")
NUM_UNITS = 5
RATE = 20.0
NUM_WINDOWS = 3


class TrainWrapper(L.LightningModule):
    """As the published script wraps the model."""

    def __init__(self, model, cfg):
        super().__init__()
        self.model = model
        self.save_hyperparameters(cfg)

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), 1e-3)

    def training_step(self, batch, _):
        outputs = self.model(**batch["model_inputs"])
        return sum(output.square().mean() for output in outputs.values())


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    # only the readouts that are asked for, so that the file stays small; ids as in the registry
    model = CalciumPOYOPlus(readout_specs=MODALITY_REGISTRY, **MODEL)
    for name in list(model.readout.projections):
        if name not in READOUTS:
            del model.readout.projections[name]
    units = {s: [f"allen/{s}/{700 + i}" for i in range(NUM_UNITS)] for s in SESSIONS}
    model.unit_emb.initialize_vocab([np.str_(u) for s in SESSIONS for u in units[s]])
    model.session_emb.initialize_vocab([f"allen/{session}" for session in SESSIONS])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    windows = [window(rng, s, units[s]) for s in SESSIONS for _ in range(NUM_WINDOWS)]
    batch = collate([model.tokenize(data) for data in windows])
    train(TrainWrapper(model, CONFIG), batch, directory / "checkpoint.ckpt")
    with torch.no_grad():
        outputs = model.eval()(**batch["model_inputs"])
    inputs = {f"df_over_f.{i}": torch.tensor(data.calcium_traces.df_over_f)
              for i, data in enumerate(windows)}  # fmt: skip
    tensors = inputs | {f"outputs.{name}": value for name, value in outputs.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, directory / "outputs.safetensors")


def window(rng: np.random.Generator, session: str, units: list[str]) -> Data:
    """Noise, and one grating whose middle is the middle of the window."""
    length = MODEL["sequence_length"]
    middle = np.array([length / 2])
    gratings = {name: rng.integers(0, 5, 1) for name in READOUTS.values()}
    data = Data(
        calcium_traces=RegularTimeSeries(
            df_over_f=rng.normal(size=(round(length * RATE), len(units))).astype(np.float32),
            sampling_rate=RATE,
        ),
        units=ArrayDict(id=np.array(units)),
        drifting_gratings=Interval(
            start=middle - 0.5, end=middle + 0.5, timestamps=middle,
            timekeys=["start", "end", "timestamps"], **gratings,
        ),
        session=Data(id=f"allen/{session}", domain=Interval(0.0, length)),
        domain=Interval(0.0, length),
    )  # fmt: skip
    data.config = {"multitask_readout": [{"readout_id": name, "metrics": []} for name in READOUTS]}
    return data


def train(wrapper: TrainWrapper, batch: dict, path: Path) -> None:
    """Two steps, so that the checkpoint is one of a training."""
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader([batch] * 2, batch_size=None)
    trainer.fit(wrapper, loader)
    trainer.save_checkpoint(path)


if __name__ == "__main__":
    main()
