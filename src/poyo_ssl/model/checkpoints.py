"""Weights, config and unit vocabulary, kept together in one directory and free of pickles."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from poyo_ssl.alignment.placement import Placement
from poyo_ssl.model.checkpoint_files import CONFIG, NOT_AS_WRITTEN, WEIGHTS, CheckpointError
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.provenance import Provenance
from poyo_ssl.model.taught import PREFIX, Taught
from poyo_ssl.whole_files import partial_file, publish, remove_stale_partials, to_json

__all__ = [
    "CONFIG", "WEIGHTS", "CheckpointError", "build_encoder", "digest", "encoder_settings",
    "load_checkpoint", "load_encoder", "network_tensors", "restore", "save_checkpoint",
    "save_encoder",
]  # fmt: skip


def save_checkpoint(
    directory: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]
) -> None:
    """Writes tensors and a JSON config so that the directory is complete or not there at all.

    Both files are written beside their final place and flushed to disk before either is renamed;
    the config, without which a checkpoint does not load, comes last. If writing fails, what was
    there before stays.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(directory)
    with partial_file(directory / WEIGHTS) as weights:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, weights
        )
        with partial_file(directory / CONFIG) as config_path:
            config_path.write_text(to_json(config))
            publish(weights, directory / WEIGHTS)
            publish(config_path, directory / CONFIG)


def load_checkpoint(directory: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`save_checkpoint` wrote; nothing in the files is executed.

    Raises:
        CheckpointError: If the directory holds no complete, readable checkpoint.
    """
    directory = Path(directory)
    missing = [name for name in (WEIGHTS, CONFIG) if not (directory / name).is_file()]
    if missing:
        found = sorted(path.name for path in directory.glob("*"))[:8] if directory.is_dir() else []
        raise CheckpointError(
            f"'{directory}' is no checkpoint: {' and '.join(missing)} missing "
            f"(found: {', '.join(found) or 'nothing'}). Give the directory that "
            "'poyo-ssl pretrain' or 'finetune' wrote."
        )
    try:
        config = json.loads((directory / CONFIG).read_text())
        tensors = load_file(directory / WEIGHTS)
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise CheckpointError(
            f"The checkpoint in '{directory}' is damaged ({error}). Train again."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"The checkpoint in '{directory}' is damaged ({CONFIG} holds no settings by name but "
            f"a {type(config).__name__}). Train again."
        )
    _require_size(directory, tensors, config)
    return tensors, config


def _require_size(directory: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Refuses a network that would be built larger than its weights are."""
    encoder = config.get("encoder")
    sizes = {name: config.get(name) for name in ("members", "num_queries")}
    if isinstance(encoder, dict):
        sizes |= {**encoder, "sampling_rate": config.get("sampling_rate")}
    most = sum(map(Tensor.numel, tensors.values()))
    for name, size in sizes.items():
        if isinstance(size, (int, float)) and size > max(most, 1):
            raise CheckpointError(
                f"The checkpoint in '{directory}' is damaged ({name} is {size}, and there are "
                f"{most} weights). Train again."
            )


def digest(tensors: dict[str, Tensor]) -> str:
    """A name for these very weights."""
    summary = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        summary.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        summary.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return summary.hexdigest()[:16]


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The network's weights and buffers by name."""
    return dict(network.state_dict())


def encoder_settings(encoder: Encoder) -> dict[str, Any]:
    """All that is needed to build the encoder again, JSON-ready."""
    provenance = encoder.provenance
    return {
        "encoder": asdict(encoder.config),
        "sampling_rate": encoder.sampling_rate,
        "unit_ids": list(encoder.unit_embedding.vocab)[1:],
        "placement": None if encoder.placement is None else encoder.placement.settings(),
        "pretraining": None if provenance is None else asdict(provenance),
    }


def build_encoder(settings: dict[str, Any]) -> Encoder:
    """An encoder of the given settings with fresh weights."""
    encoder = Encoder(EncoderConfig(**settings["encoder"]), settings["sampling_rate"])
    encoder.add_units(settings["unit_ids"])
    if settings.get("placement") is not None:
        encoder.placement = Placement.of(settings["placement"])
    encoder.provenance = Provenance.read(settings.get("pretraining"))
    return encoder


def restore(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copies weights into a network of the same shape, strictly.

    Raises:
        CheckpointError: If a tensor is missing, unknown or of another shape.
    """
    own = network_tensors(network)
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += [
        name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"The checkpoint does not fit its own config: {', '.join(wrong[:5])} "
            "missing, unknown or of another shape. It was changed after it was written."
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def save_encoder(encoder: Encoder, directory: str | Path) -> None:
    """Saves a pretrained encoder."""
    tensors, settings = _contents(encoder)
    save_checkpoint(directory, tensors, {"kind": "encoder", **settings})


def encoder_digest(encoder: Encoder) -> str:
    """A name for this very encoder: its weights and whose they are, wherever it was learned."""
    tensors, settings = _contents(encoder)
    settings.pop("pretraining")
    return hashlib.sha256(f"{digest(tensors)} {to_json(settings)}".encode()).hexdigest()[:16]


def _contents(encoder: Encoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that is saved of an encoder: tensors, and JSON-ready settings."""
    tensors, settings = network_tensors(encoder), encoder_settings(encoder)
    if encoder.taught is not None:
        tensors |= {PREFIX + name: value for name, value in encoder.taught.tensors.items()}
        settings["taught"] = encoder.taught.settings()
    return tensors, settings


def load_encoder(directory: str | Path) -> Encoder:
    """Loads a pretrained encoder.

    Raises:
        CheckpointError: If there is none.
    """
    tensors, settings = load_checkpoint(directory)
    if settings.get("kind") != "encoder":
        raise CheckpointError(
            f"'{directory}' holds a {settings.get('kind')}, not an encoder; give the directory "
            "that 'poyo-ssl pretrain' wrote."
        )
    try:
        encoder = build_encoder(settings)
        if settings.get("taught") is not None:
            names = [name for name in tensors if name.startswith(PREFIX)]
            learned = {name.removeprefix(PREFIX): tensors.pop(name) for name in names}
            encoder.taught = Taught.of(settings["taught"], learned)
        restore(encoder, tensors)
    except NOT_AS_WRITTEN as error:
        raise CheckpointError(
            f"The checkpoint in '{directory}' does not load ({error!r}). It was changed after it "
            "was written: pretrain again."
        ) from error
    return encoder
