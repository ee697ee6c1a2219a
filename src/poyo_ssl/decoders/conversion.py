"""The published Calcium POYO+ checkpoint of torch-brain in our forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from poyo_ssl.decoders.calcium_poyo_plus import (
    PUBLISHED_TASKS,
    CalciumPOYOPlusDecoder,
    answered_tasks,
    name_within,
    network_settings,
    provenance_of,
    published_question,
)
from poyo_ssl.file_names import DECODERS, EXPERIMENT, SPLITS
from poyo_ssl.model.calcium_poyo_plus import NETWORK, CalciumPOYOPlus, build_calcium_poyo_plus
from poyo_ssl.model.checkpoints import (
    CheckpointError,
    network_tensors,
    restore,
    save_checkpoint,
    save_encoder,
)
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.lightning_checkpoint import mappings_in, read_lightning_checkpoint
from poyo_ssl.whole_files import write_json

ENCODER = "encoder"
"""Folder of the encoder in a converted checkpoint."""
_OURS = (
    (r"^latent_emb\.weight$", "latent_embedding"),
    (r"^unit_emb\.", "unit_embedding."),
    (r"^rotary_emb\.", "rotary."),
    (r"^input_value_map\.", "value_map."),
    (r"^enc_atn\.", "read."),
    (r"^enc_ffn\.", "read_feedforward."),
    (r"^proc_layers\.(\d+)\.0\.", r"process_layers.\1.attention."),
    (r"^proc_layers\.(\d+)\.1\.", r"process_layers.\1.feedforward."),
    (r"feedforward\.0\.", "feedforward.norm."),
    (r"feedforward\.1\.net\.0\.", "feedforward.widen."),
    (r"feedforward\.1\.net\.3\.", "feedforward.narrow."),
)
"""Published names of weights that read and process windows, and ours, one after the other."""
_ONLY_THEIRS = "session_emb|token_type_emb|task_emb|dec_atn|dec_ffn|readout"
"""What asks and answers in the published network; ours learns that anew."""


def convert_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    sampling_rate: float = 30.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CalciumPOYOPlus:
    """Writes a Calcium POYO+ checkpoint of torch-brain (0.1.2) in our forms; nothing in it is run.

    - ``network``: all of it, for ``load_calcium_poyo_plus``;
    - ``decoders/<task>``: one readout each, for ``evaluate`` and ``StreamingDecoder``;
    - ``encoder``: what reads and processes windows, for ``finetune`` and ``adapt``.

    Args:
        checkpoint: What Lightning wrote.
        output: Directory.
        tasks: What decoders are written for; None: every task that the checkpoint's
            hyperparameters say it learned, or where they say nothing, that it has a readout for.
        sampling_rate: Imaging rate in Hz of the recordings to decode.
        on_progress: Called with the parts written, which are network, encoder and decoders, and
            those in all.

    Returns:
        The network.

    Raises:
        CheckpointError: If the file is damaged, holds another model, or does not answer a task.
    """
    network, hyperparameters = read_calcium_poyo_plus(checkpoint)
    chosen = _learned_tasks(network, hyperparameters) if tasks is None else tasks
    questions = {task: published_question(network, task, sampling_rate) for task in chosen}
    output, total = Path(output), 2 + len(questions)
    on_progress(0, total)
    save_checkpoint(
        output / NETWORK,
        network_tensors(network),
        {"kind": "calcium_poyo_plus_network", **network_settings(network)},
    )
    on_progress(1, total)
    save_encoder(as_encoder(network, sampling_rate), output / ENCODER)
    for done, (task, question) in enumerate(questions.items(), start=2):
        on_progress(done, total)
        CalciumPOYOPlusDecoder(question, network).save(output / DECODERS / task)
    on_progress(total, total)
    write_json(output / EXPERIMENT, {"recordings": {}})
    write_json(output / SPLITS, [])
    return network


def read_calcium_poyo_plus(path: str | Path) -> tuple[CalciumPOYOPlus, dict[str, Any]]:
    """The network in a checkpoint of torch-brain, and its hyperparameters as plain values.

    Raises:
        CheckpointError: If the file is damaged or holds another model.
    """
    tensors, vocabularies, hyperparameters = read_lightning_checkpoint(path)
    known = "latent_emb.weight"
    prefix = next((n.removesuffix(known) for n in tensors if n.endswith(known)), "")
    sizes = next(
        (m for m in mappings_in(hyperparameters) if {"sequence_length", "latent_step"} <= m.keys()),
        {},
    )
    settings = {name: sizes[name] for name in ("sequence_length", "latent_step") if name in sizes}
    for name, layer in (("unit_ids", "unit_emb"), ("session_ids", "session_emb")):
        words = vocabularies.get(f"{prefix}{layer}.vocab")
        rows = len(tensors.get(f"{prefix}{layer}.weight", ()))
        settings[name] = _in_order(words or {}, rows, f"'{path}': {layer}")
    weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return build_calcium_poyo_plus(weights, settings, origin=str(path)), hyperparameters


def _in_order(vocabulary: Mapping[str, int], num_rows: int, where: str) -> list[str]:
    """The words of rows 1, 2, ...; row 0 is for what is unknown."""
    words = sorted(vocabulary, key=lambda word: vocabulary[word])
    if [vocabulary[word] for word in words] != list(range(num_rows)):
        raise CheckpointError(
            f"{where}.vocab names {len(words)} rows, not each of the {num_rows} once. Give a "
            "checkpoint of CalciumPOYOPlus with its vocabularies, as torch-brain writes it."
        )
    return words[1:]


def _learned_tasks(network: CalciumPOYOPlus, hyperparameters: Mapping[str, Any]) -> list[str]:
    """Tasks that some session of the training config has a readout for; all if none is named."""
    named = {m["readout_id"] for m in mappings_in(hyperparameters) if "readout_id" in m}
    return [
        task for task in answered_tasks(network) if not named or PUBLISHED_TASKS[task].name in named
    ]


def as_encoder(network: CalciumPOYOPlus, sampling_rate: float) -> Encoder:
    """Our encoder with the published weights: the same latents of the same activity.

    Our stages give it normalised activity, which differs from the ΔF/F that it learned from, so
    it has to be fine-tuned before it answers anything.

    Args:
        network: With names of units. In our encoder a unit is called as in its recording, or as
            in the network where two sessions have one of that name.
        sampling_rate: Imaging rate in Hz of the recordings to learn from.

    Raises:
        CheckpointError: If it has a size that our encoder cannot have.
    """
    sizes = network.config
    try:
        config = EncoderConfig(
            tokens="concatenated",
            dim=sizes.dim,
            depth=sizes.depth,
            num_heads=sizes.self_heads,
            read_heads=sizes.cross_heads,
            dim_head=sizes.dim_head,
            latents_per_step=sizes.num_latents_per_step,
            latent_step=sizes.latent_step,
            patch_length=0.0,
            feedforward_factor=4,
            dropout=sizes.ffn_dropout,
        )
    except ValueError as error:
        raise CheckpointError(f"The network does not fit our encoder: {error}") from error
    encoder = Encoder(config, sampling_rate)
    names = [name_within(word) for word in network.unit_ids]
    is_twice = len(set(names)) < len(names)
    encoder.add_units(list(network.unit_ids) if is_twice else names)
    encoder.provenance = provenance_of(network)
    restore(encoder, _renamed(network_tensors(network)))
    return encoder


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights of reading and processing under our names."""
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in _OURS:
            name = re.sub(theirs, ours, name)
        if not re.match(_ONLY_THEIRS, name):
            renamed[name] = value
    return renamed
