"""Times a training step of one member, of four members, and of four separate fits.

    python benchmarks/members.py --data ../shared/data [--threads 1] [--rounds 5]

Direction on the real drifting-gratings session, default encoder and config. A step takes what a
long fit takes more than a short one, per step, so that neither preparation nor validation counts.
The three take turns; ratios are taken within a round. Beside them, forward and backward passes that
say what a step is made of:

- reading: the cross-attention from latents to activity, of 32 windows, once from tokens and once
  from combinations of those of their unit; the faster is chosen by ``_combining_pays``;
- the rest: all that follows, of 32 windows and of 128. For the rest, four members with stacked
  weights could not take less than one that has four times as many windows.

Writes benchmarks/results/members.json and .md. Seconds are those of the processor; by the clock,
too, in the json. Takes five minutes.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F

import poyo_ssl as ps
from poyo_ssl.comparison.run_directory import describe_hardware
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.grid_attention import GainCrossAttention
from poyo_ssl.model.readouts import LabelDecoder
from poyo_ssl.training.members import member_seeds
from poyo_ssl.windows.activity import Windows
from poyo_ssl.windows.population import Population

SESSION = "sub-527550471_ses-527745328-StimA_ophys.nwb"
MEMBERS = 4
SHORT, LONG = 5, 25
WINDOWS, UNITS, TIMESTEPS, RATE = 32, 190, 60, 30.0  # of a step, after unit dropout
REPEATS = 20

Seconds = tuple[float, float]
"""Of the processor, and by the clock."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recordings = ps.load_recordings(options.data / SESSION)
    units = {recording.recording_id: list(recording.unit_ids) for recording in recordings}
    population = Population(ps.divide(recordings, "direction"), units)
    steps = {
        "one member": lambda: seconds_per_step(population, 1, [0]),
        "four members": lambda: seconds_per_step(population, MEMBERS, [0]),
        "four separate fits": lambda: seconds_per_step(population, 1, member_seeds(0, MEMBERS)),
    }
    result = {
        "command": f"python benchmarks/members.py --threads {options.threads}",
        "hardware": describe_hardware(),
        "threads": options.threads,
        "steps": in_turns(steps, options.rounds),
        "passes": in_turns(passes(), REPEATS),
    }
    results = Path(__file__).parent / "results"
    (results / "members.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "members.md").write_text(format_markdown(result))
    print(format_markdown(result))


def in_turns(
    contestants: dict[str, Callable[[], Seconds]], rounds: int
) -> dict[str, list[Seconds]]:
    """Seconds of every contestant in every round, after one that does not count."""
    found: dict[str, list[Seconds]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, measure in contestants.items():
            seconds = measure()
            if number > 0:
                found[name].append(seconds)
    return found


def timed(action: Callable[[], object]) -> Seconds:
    processor, clock = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - processor, time.perf_counter() - clock


def seconds_per_step(population: Population, members: int, seeds: list[int]) -> Seconds:
    """Of fits with these seeds, one after the other."""

    def fit(num_steps: int) -> Seconds:
        training = ps.TrainingConfig(max_steps=num_steps, patience=None)
        config = ps.FinetuningConfig(training=training, members=members)
        taken = [
            timed(lambda seed=seed: ps.finetune(population, "direction", None, config, seed=seed))
            for seed in seeds
        ]
        return sum(cpu for cpu, _ in taken), sum(clock for _, clock in taken)

    short, long = fit(SHORT), fit(LONG)
    return (long[0] - short[0]) / (LONG - SHORT), (long[1] - short[1]) / (LONG - SHORT)


def passes() -> dict[str, Callable[[], Seconds]]:
    """Forward and backward, without an optimiser."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(), RATE)
    encoder.add_units([str(unit) for unit in range(UNITS)])
    rows = encoder.unit_rows([str(unit) for unit in range(UNITS)])
    activity = torch.randn(WINDOWS, TIMESTEPS, UNITS)
    network = after_reading(encoder)

    def read_activity() -> torch.Tensor:
        return encoder.read(
            encoder.latent_embedding.repeat(4, 1),
            encoder.cut_patches(activity),
            encoder.value_map,
            encoder.unit_embedding(rows),
            encoder.latent_phases(TIMESTEPS),
            encoder.rotary(encoder.patch_times(TIMESTEPS)),
        )

    def read(is_combined: bool) -> Seconds:
        way = patch.object(GainCrossAttention, "_combining_pays", lambda *_: is_combined)
        with way:
            return timed(lambda: read_activity().square().sum().backward())

    def rest(num_windows: int) -> Seconds:
        read_latents = torch.randn(num_windows, 16, encoder.config.dim, requires_grad=True)
        target = torch.zeros(num_windows, dtype=torch.long)
        return timed(lambda: F.cross_entropy(network(read_latents), target).backward())

    return {
        "reading, tokens": lambda: read(False),
        "reading, combined": lambda: read(True),
        "the rest, 32 windows": lambda: rest(WINDOWS),
        "the rest, 128 windows": lambda: rest(MEMBERS * WINDOWS),
    }


def after_reading(encoder: Encoder) -> Callable[[torch.Tensor], torch.Tensor]:
    """All of a label decoder that follows the reading."""
    decoder = LabelDecoder(encoder, num_classes=8, query_time=1.0)

    def answer(latents: torch.Tensor) -> torch.Tensor:
        latents = latents + encoder.read_feedforward(latents)
        with patch.object(encoder, "read_windows", lambda *_: latents):
            windows = Windows(latents.new_empty(len(latents), TIMESTEPS, 1), None)
            return decoder(windows)

    return answer


def format_markdown(result: dict) -> str:
    steps, passes_ = result["steps"], result["passes"]
    lines = [
        f"`{result['command']}`",
        "",
        f"Time of the processor, medians of {len(steps['one member'])} rounds, "
        f"threads: {result['threads']}.",
        "",
        "| a training step | ms | times one member |",
        "|---|---|---|",
    ]
    for name, seconds in steps.items():
        ratio = statistics.median(
            mine[0] / one[0] for mine, one in zip(seconds, steps["one member"], strict=True)
        )
        lines.append(f"| {name} | {median_ms(seconds):.0f} | {ratio:.2f} |")
    lines += ["", "| forward and backward | ms |", "|---|---|"]
    lines += [f"| {name} | {median_ms(seconds):.1f} |" for name, seconds in passes_.items()]
    return "\n".join(lines) + "\n"


def median_ms(seconds: list[Seconds]) -> float:
    return 1e3 * statistics.median(cpu for cpu, _ in seconds)


if __name__ == "__main__":
    main()
