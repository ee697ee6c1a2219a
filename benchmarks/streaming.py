"""Times decoding while the microscope runs: one imaging sample in, one answer out.

    python benchmarks/streaming.py

Writes benchmarks/results/streaming.json and .md: milliseconds per sample on one core, from ΔF/F to
the answer, once the first window is full; the default encoder, windows of two seconds at 30 Hz.
The clock counts what other work on the machine takes away; the processor time of the thread, given
beside it, does not. Weights are random, since only sizes matter here: a teacher is a ridge readout
of twelve bins, or a look-up of 900 movie frames in six; a filter looks through ten windows.
Pictures have 64 x 128 pixels, and those of networks 64 components.

The largest difference is to the answers of ``predict`` for every tenth of the same windows.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.frame_decoders import FrameFilter, NearestFrame
from poyo_ssl.decoders.frame_templates import FrameTemplates, Showings, TemplateOptions
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.network import ClassNetwork, FrameNetwork, PictureNetwork
from poyo_ssl.decoders.streaming import StreamingDecoder
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.activity import UnitScale
from poyo_ssl.windows.tasks import DIRECTION, MOVIE_FRAME, MOVIE_HELD_OUT, Task

RATE, WINDOW_SECONDS = 30.0, 2.0
NUM_SAMPLES = 3000
NUM_DIRECTIONS, NUM_MOVIE_FRAMES, NUM_COMPONENTS, NUM_BINS = 8, 900, 64, 12
PICTURE = (64, 128)
MEMBERS = 4  # as by default
COMPARE_EVERY = 10
FIGURES = ("p50", "p99", "max")
RESULTS = Path(__file__).parent / "results" / "streaming.json"


def draw_recording(num_units: int, rng: np.random.Generator) -> Recording:
    return Recording(
        recording_id="synthetic",
        df_over_f=rng.standard_normal((NUM_SAMPLES, num_units), dtype=np.float32),
        timestamps=np.arange(NUM_SAMPLES) / RATE,
        units=pd.DataFrame({"unit_id": [f"synthetic/{unit}" for unit in range(num_units)]}),
    )


def make_question(task: Task, recording: Recording, answers: int) -> Question:
    _, num_timesteps = make_encoder(recording)
    unit_ids = recording.unit_ids.tolist()
    return Question(
        arm="random",
        task=task,
        classes=np.arange(answers),
        num_timesteps=num_timesteps,
        sampling_rate=RATE,
        scale=UnitScale.measure(recording, np.array([[0.0, NUM_SAMPLES / RATE]]), unit_ids),
    )


def make_teacher(recording: Recording, num_scores: int, rng: np.random.Generator) -> LinearReadout:
    return LinearReadout.from_coefficients(
        0.01 * rng.standard_normal((num_scores, NUM_BINS * recording.num_units)),
        intercept=np.zeros(num_scores),
        center=np.zeros(NUM_BINS * recording.num_units),
        unit_ids=recording.unit_ids.tolist(),
    )


def make_templates(recording: Recording, rng: np.random.Generator) -> FrameTemplates:
    options = TemplateOptions()
    showings = Showings(
        features=rng.standard_normal(
            (NUM_MOVIE_FRAMES, options.num_bins * recording.num_units), dtype=np.float32
        ),
        movie_frame=np.arange(NUM_MOVIE_FRAMES),
        unit_ids=recording.unit_ids.tolist(),
        frame_period=1 / RATE,
    )
    return FrameTemplates.fit(showings, NUM_MOVIE_FRAMES, options)


def make_encoder(recording: Recording) -> tuple[Encoder, int]:
    encoder = Encoder(EncoderConfig(), RATE)
    encoder.add_units(recording.unit_ids.tolist())
    return encoder, encoder.window_timesteps(WINDOW_SECONDS)


def make_networks(recording: Recording, num_classes: int, members: int) -> list[LabelDecoder]:
    return [
        LabelDecoder(
            make_encoder(recording)[0], num_classes=num_classes, query_time=WINDOW_SECONDS / 2
        )
        for _ in range(members)
    ]


def direction(
    recording: Recording, rng: np.random.Generator, members: int = MEMBERS
) -> ClassNetwork:
    question = make_question(DIRECTION, recording, NUM_DIRECTIONS)
    return ClassNetwork(question, make_networks(recording, NUM_DIRECTIONS, members))


def direction_with_teacher(recording: Recording, rng: np.random.Generator) -> ClassNetwork:
    alone = direction(recording, rng)
    return ClassNetwork(
        alone.question, alone.networks, make_teacher(recording, NUM_DIRECTIONS, rng), blend=0.5
    )


def movie_frame_with_teacher(recording: Recording, rng: np.random.Generator) -> FrameNetwork:
    return FrameNetwork(
        make_question(MOVIE_FRAME, recording, NUM_MOVIE_FRAMES),
        make_networks(recording, NUM_MOVIE_FRAMES, MEMBERS),
        make_templates(recording, rng),
        blend=0.5,
    )


def picture_with_teacher(recording: Recording, rng: np.random.Generator) -> PictureNetwork:
    networks = [
        MovieDecoder(
            make_encoder(recording)[0],
            mean_frame=torch.full(PICTURE, 0.5),
            query_time=WINDOW_SECONDS / 2,
            components=0.01 * torch.randn(NUM_COMPONENTS, *PICTURE),
        )
        for _ in range(MEMBERS)
    ]
    question = make_question(MOVIE_HELD_OUT, recording, NUM_MOVIE_FRAMES)
    return PictureNetwork(question, networks, make_teacher(recording, NUM_COMPONENTS, rng))


def movie_frame_looked_up(recording: Recording, rng: np.random.Generator) -> NearestFrame:
    question = make_question(MOVIE_FRAME, recording, NUM_MOVIE_FRAMES)
    return NearestFrame(question, make_templates(recording, rng), pictures=None)


def movie_frame_filtered(recording: Recording, rng: np.random.Generator) -> FrameFilter:
    question = make_question(MOVIE_FRAME, recording, NUM_MOVIE_FRAMES)
    return FrameFilter(question, make_templates(recording, rng), pictures=None)


def picture_filtered(recording: Recording, rng: np.random.Generator) -> FrameFilter:
    question = make_question(MOVIE_HELD_OUT, recording, NUM_MOVIE_FRAMES)
    pictures = rng.random((NUM_MOVIE_FRAMES, *PICTURE), dtype=np.float32)
    return FrameFilter(question, make_templates(recording, rng), pictures)


DECODERS: dict[str, Callable[[Recording, np.random.Generator], FittedDecoder]] = {
    "direction, one network": partial(direction, members=1),
    "direction": direction,
    "direction, with a teacher": direction_with_teacher,
    "movie frame, with a look-up": movie_frame_with_teacher,
    "movie frame, look-up alone": movie_frame_looked_up,
    "movie frame, filter alone": movie_frame_filtered,
    "picture, with a teacher": picture_with_teacher,
    "picture, filter alone": picture_filtered,
}
SETTINGS = [
    ("direction, one network", 50),
    ("direction, one network", 300),
    ("direction, one network", 1000),
    *((name, 300) for name in list(DECODERS)[1:]),
]
"""Name and number of units."""


def measure(name: str, num_units: int) -> dict[str, object]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    recording = draw_recording(num_units, rng)
    decoder = DECODERS[name](recording, rng)
    stream = StreamingDecoder(decoder, recording.unit_ids.tolist(), recording.recording_id)
    answers, clock, processor = [], [], []
    for sample in recording.df_over_f:
        started, started_processor = time.perf_counter(), time.thread_time()
        answer = stream.push(sample)
        stopped, stopped_processor = time.perf_counter(), time.thread_time()
        if answer is not None:
            answers.append(answer)
            clock.append(1e3 * (stopped - started))
            processor.append(1e3 * (stopped_processor - started_processor))
    compared = np.arange(0, len(answers), COMPARE_EVERY)
    difference = np.stack(answers)[compared] - decoder.predict(recording, compared)
    return {
        "decoder": name,
        "num_units": num_units,
        "num_answers": len(answers),
        "clock_ms": summary(clock),
        "processor_ms": summary(processor),
        "largest_difference": float(np.abs(difference).max()),
    }


def summary(milliseconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": max(milliseconds)}


def as_markdown(results: list[dict]) -> str:
    lines = [
        "`python benchmarks/streaming.py`",
        "",
        f"Milliseconds per imaging sample on one core, {NUM_SAMPLES} samples at {RATE:.0f} Hz (one "
        f"every {1e3 / RATE:.0f} ms), windows of {WINDOW_SECONDS:.0f} s, the default encoder, "
        f"torch {torch.__version__}; networks have {MEMBERS} members where not said otherwise. "
        "Goals at 300 units, p99: pictures below 33 ms, all others below 5 ms.",
        "",
        "| answer | units | p50 | p99 | max | processor: p50 | p99 | max | difference to offline |",
        "|---" * 9 + "|",
    ]
    for row in results:
        figures = [row[kind][name] for kind in ("clock_ms", "processor_ms") for name in FIGURES]
        cells = " | ".join(f"{figure:.2f}" for figure in figures)
        lines.append(
            f"| {row['decoder']} | {row['num_units']} | {cells} | {row['largest_difference']:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    results = [measure(name, num_units) for name, num_units in SETTINGS]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(as_markdown(results))
    print(as_markdown(results))


if __name__ == "__main__":
    main()
