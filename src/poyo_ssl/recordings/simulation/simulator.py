"""An invented brain observatory: recordings of simulated cells that watch gratings and a movie."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd
from scipy import signal, sparse

from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.cells import (
    LINES,
    Cells,
    compute_calcium,
    compute_firing_rates,
    draw_brain_state,
    draw_cells,
    fluctuate,
    image_calcium,
)
from poyo_ssl.recordings.simulation.receptive_fields import compute_visual_drive
from poyo_ssl.recordings.simulation.visual_stimuli import (
    DRIFTING_DIRECTIONS,
    DRIFTING_SPATIAL_FREQUENCY,
    DRIFTING_TEMPORAL_FREQUENCIES,
    MOVIE_RATE,
    REFRESH_RATE,
    SCREEN_WIDTH,
    STATIC_ORIENTATIONS,
    STATIC_PHASES,
    STATIC_SPATIAL_FREQUENCIES,
    Screen,
    render_movie,
)

logger = logging.getLogger(__name__)

SIMULATED_BY = "simulated by poyo_ssl"
"""How the source of every simulated recording begins."""

_GRATING_SECONDS = 2.0
_GREY_SECONDS = 1.0
_STATIC_SECONDS = 0.25
_MARGIN_SECONDS = 2.0  # of grey at both ends of a block
FIELD_OF_VIEW = 512.0
"""Pixels along each side of the field of view."""
_MOVIE_STREAM, _RECORDING_STREAM, _PLACE_STREAM = (
    0,
    1,
    2,
)  # independent sources of randomness of one seed
_UNITS_AT_ONCE = 16  # bounds the memory of an hour-long recording


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """Which recordings to simulate. The defaults have the shapes of the real observatory."""

    lines: tuple[str, ...] = tuple(LINES)
    """Cre lines, from the 13 of Bae et al., arXiv:2510.18516."""
    recordings_per_line: int = 2
    """Recordings of each line, each of another mouse."""
    units_per_recording: int = 174
    """Cells of a recording (typical in the Allen Brain Observatory; de Vries et al. 2020)."""
    sampling_rate: float = 30.0
    """Imaging rate in Hz (de Vries et al. 2020)."""
    grating_trials_per_condition: int = 15
    """Showings of each of 8 directions x 5 temporal frequencies, 2 s each and 1 s of grey
    (de Vries et al. 2020)."""
    blank_sweeps: int = 28
    """Trials without a grating among them (de Vries et al. 2020: 628 rows in all)."""
    grating_blocks: int = 3
    """Blocks that the drifting gratings are divided into (de Vries et al. 2020)."""
    movie_frames: int = 900
    """Movie frames of natural_movie_one, 30 per second (de Vries et al. 2020)."""
    movie_repeats: int = 10
    """Showings of the movie, back to back in one block (de Vries et al. 2020)."""
    movie_height: int = 64
    """Pixels of a movie frame from top to bottom: what the decoders reconstruct."""
    movie_width: int = 128
    """Pixels of a movie frame from left to right: what the decoders reconstruct."""
    include_static_gratings: bool = True
    """Whether a block of static gratings is shown."""
    static_trials_per_condition: int = 30
    """Showings of each of 6 orientations x 5 spatial frequencies x 4 phases where static gratings
    are shown, 0.25 s each (de Vries et al. 2020: about 50)."""
    spontaneous_duration: float = 300.0
    """Seconds of grey before the movie; 0 leaves them out (de Vries et al. 2020: 5 to 10 min)."""
    gap_duration: float = 60.0
    """Seconds between two blocks in which nothing is imaged (ours)."""
    seed: int = 0
    """Decides everything random; each recording has its own stream."""

    def __post_init__(self) -> None:
        problems = []
        unknown = [line for line in self.lines if line not in LINES]
        if unknown or not self.lines or len(set(self.lines)) < len(self.lines):
            problems.append(f"lines must be distinct names from {list(LINES)}, got {self.lines}.")
        if not 10 <= self.sampling_rate <= REFRESH_RATE:
            problems.append(
                f"sampling_rate must lie between 10 and {REFRESH_RATE:g} Hz, the rate of the "
                f"screen, got {self.sampling_rate}."
            )
        at_least = {
            "recordings_per_line": 1, "units_per_recording": 1, "grating_trials_per_condition": 1,
            "blank_sweeps": 0, "grating_blocks": 1, "movie_frames": 1, "movie_repeats": 1,
            "movie_height": 8, "movie_width": 8, "static_trials_per_condition": 1,
            "spontaneous_duration": 0, "gap_duration": 1, "seed": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            if getattr(self, name) < least:
                problems.append(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if problems:
            raise ValueError(" ".join(problems))

    @classmethod
    def full(cls, *, seed: int = 0) -> SimulatorConfig:
        """All 13 lines in sessions of the real size: 174 units, an hour."""
        return cls(seed=seed)

    @classmethod
    def demo(cls, *, seed: int = 0) -> SimulatorConfig:
        """A small observatory for a laptop: four recordings of 70 units and 12 minutes."""
        return cls(
            lines=("Sst", "Ntsr1", "Cux2", "Rorb"),
            recordings_per_line=1,
            units_per_recording=70,
            grating_trials_per_condition=4,
            blank_sweeps=8,
            movie_frames=1800,
            movie_repeats=3,
            include_static_gratings=False,
            spontaneous_duration=30.0,
            gap_duration=10.0,
            seed=seed,
        )


def simulate_observatory(config: SimulatorConfig) -> list[Recording]:
    """All recordings of an invented brain observatory; see :func:`simulate_recordings`."""
    return list(simulate_recordings(config))


def simulate_recordings(config: SimulatorConfig) -> Iterator[Recording]:
    """Simulates recordings one after another, so that one at a time is in memory.

    All mice see the same movie. Everything else is drawn anew for each recording from its own
    random stream: a recording is the same whichever others are simulated beside it.

    Args:
        config: What to simulate.

    Yields:
        Recordings named ``sim<seed>-<line>-<number>`` with drifting gratings,
        ``natural_movie_one``, spontaneous activity, running and pupil.
    """
    movie_rng = np.random.default_rng([config.seed, _MOVIE_STREAM])
    movie = render_movie(config.movie_frames, config.movie_height, config.movie_width, movie_rng)
    screen = Screen.with_movie(movie)
    for line in config.lines:
        for number in range(config.recordings_per_line):
            yield _simulate_recording(config, line, number, movie, screen)


def _simulate_recording(
    config: SimulatorConfig, line: str, number: int, movie: np.ndarray, screen: Screen
) -> Recording:
    recording_id = f"sim{config.seed}-{line}-{number}"
    stream = [config.seed, _RECORDING_STREAM, list(LINES).index(line), number]
    rng = np.random.default_rng(stream)
    schedule = _schedule_session(config, rng)
    screen_height = SCREEN_WIDTH * config.movie_height / config.movie_width
    cells = draw_cells(LINES[line], config.units_per_recording, screen_height, rng)
    timestamps = np.arange(int(schedule.duration * config.sampling_rate)) / config.sampling_rate
    running = _simulate_running(timestamps, config.sampling_rate, rng)
    df_over_f = _simulate_traces(config, cells, schedule, screen, running, rng)
    is_imaged = schedule.is_imaged(timestamps)
    movement = pd.DataFrame({"timestamp": timestamps, "speed": running})
    pupil = _simulate_pupil(timestamps, running, config.sampling_rate, rng)
    logger.info("simulated recording %s: %d timesteps", recording_id, is_imaged.sum())
    places = np.random.default_rng([config.seed, _PLACE_STREAM, *stream[2:]])
    x, y = places.uniform(0, FIELD_OF_VIEW, (2, len(cells)))
    units = pd.DataFrame(
        {
            "unit_id": [f"sim-{config.seed}/{line}-{number}/{n}" for n in range(len(cells))],
            "cre_line": line,
            "area": "VISp",
            "imaging_depth_um": LINES[line].imaging_depth_um,
            "x_px": x,
            "y_px": y,
        }
    )
    return Recording(
        recording_id=recording_id,
        df_over_f=df_over_f[is_imaged],
        timestamps=timestamps[is_imaged],
        units=units,
        stimuli=schedule.stimuli,
        templates={"natural_movie_one": movie},
        running=movement.loc[is_imaged].reset_index(drop=True),
        pupil=pupil.loc[is_imaged].reset_index(drop=True),
        subject_id=f"sim{config.seed}-mouse-{line}-{number}",
        session_type="simulated",
        source=f"{SIMULATED_BY} with seed {config.seed}",
    )


def _simulate_traces(
    config: SimulatorConfig,
    cells: Cells,
    schedule: _Schedule,
    screen: Screen,
    running: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """ΔF/F of the whole session, gaps included, shape (num_timesteps, num_units), float32."""
    num_refreshes = int(np.ceil(schedule.duration * REFRESH_RATE)) + 1
    mixture = screen.mixture(schedule.stimuli, num_refreshes)
    exposure = _average_refreshes(len(running), config.sampling_rate, num_refreshes)
    is_running = np.tanh(running / 10).astype(np.float32)  # saturates at a walking pace, cm/s
    state = draw_brain_state(is_running, config.sampling_rate, rng)
    df_over_f = np.empty((len(running), len(cells)), dtype=np.float32)
    for first in range(0, len(cells), _UNITS_AT_ONCE):
        some = cells.select(slice(first, first + _UNITS_AT_ONCE))
        drive = exposure @ compute_visual_drive(some.receptive_fields, screen.pictures, mixture)
        rates = compute_firing_rates(some, drive, state, config.sampling_rate, rng)
        calcium = compute_calcium(rng.poisson(rates / config.sampling_rate), config.sampling_rate)
        df_over_f[:, first : first + len(some)] = image_calcium(
            calcium, some, config.sampling_rate, rng
        )
    return df_over_f


def _average_refreshes(
    num_timesteps: int, sampling_rate: float, num_refreshes: int
) -> sparse.csr_array:
    """Averages the refreshes that begin during each imaging sample.

    Returns:
        Shape (num_timesteps, num_refreshes), float32.
    """
    edges = np.arange(num_timesteps + 1) / sampling_rate * REFRESH_RATE
    first = np.ceil(edges - 1e-6).astype(np.int64)
    counts = np.diff(first)
    weights = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
    columns = np.arange(first[0], first[-1])
    shape = (num_timesteps, num_refreshes)
    return sparse.csr_array((weights, columns, first - first[0]), shape=shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Schedule:
    """When the session shows what, and when it is imaged."""

    stimuli: dict[str, pd.DataFrame]
    """As in ``Recording.stimuli``."""
    imaged: np.ndarray
    """Imaged intervals in seconds, shape (num_segments, 2)."""

    @property
    def duration(self) -> float:
        """Seconds from the start of the session to the end of imaging."""
        return float(self.imaged[-1, 1])

    def is_imaged(self, timestamps: np.ndarray) -> np.ndarray:
        """Which of the times (s) are imaged."""
        segment = np.searchsorted(self.imaged[:, 0], timestamps + 1e-6, side="right") - 1
        return timestamps + 1e-6 < self.imaged[segment, 1]


def _schedule_session(config: SimulatorConfig, rng: np.random.Generator) -> _Schedule:
    """Blocks of gratings with the other stimuli between them, apart by gaps in the imaging."""
    blocks_of_gratings = _drifting_gratings_blocks(config, rng)
    gratings = [[("drifting_gratings", table)] for table in blocks_of_gratings]
    others = [[("natural_movie_one", _movie_block(config))]]
    if config.spontaneous_duration > 0:
        grey = pd.DataFrame({"start": [0.0], "end": [config.spontaneous_duration]})
        others[0].insert(0, ("spontaneous", grey))
    if config.include_static_gratings:
        others.append([("static_gratings", _static_gratings_block(config, rng))])
    segments = [s for pair in zip_longest(gratings, others) for s in pair if s is not None]
    blocks: dict[str, list[pd.DataFrame]] = {}
    imaged, clock = [], 0.0
    for segment in segments:
        start, clock = clock, clock + _MARGIN_SECONDS
        for name, table in segment:
            moved = table.assign(start=table["start"] + clock, end=table["end"] + clock)
            blocks.setdefault(name, []).append(moved)
            clock = float(np.ceil(moved["end"].max())) + _MARGIN_SECONDS
        imaged.append((start, clock))
        clock += config.gap_duration
    stimuli = {name: pd.concat(tables, ignore_index=True) for name, tables in blocks.items()}
    return _Schedule(stimuli=stimuli, imaged=np.array(imaged))


def _drifting_gratings_blocks(
    config: SimulatorConfig, rng: np.random.Generator
) -> list[pd.DataFrame]:
    """All conditions in random order, divided into blocks that each start at 0 s."""
    conditions = pd.MultiIndex.from_product(
        [DRIFTING_DIRECTIONS, DRIFTING_TEMPORAL_FREQUENCIES],
        names=["orientation", "temporal_frequency"],
    ).to_frame(index=False)
    conditions["spatial_frequency"] = DRIFTING_SPATIAL_FREQUENCY
    shown = np.tile(np.arange(len(conditions)), config.grating_trials_per_condition)
    blank = np.full(config.blank_sweeps, len(conditions))  # reindexing makes its values NaN
    order = rng.permutation(np.concatenate([shown, blank]))
    blocks = []
    for trials in np.array_split(order, config.grating_blocks):
        starts = np.arange(len(trials)) * (_GRATING_SECONDS + _GREY_SECONDS)
        times = pd.DataFrame({"start": starts, "end": starts + _GRATING_SECONDS})
        blocks.append(times.join(conditions.reindex(trials).reset_index(drop=True)))
    return blocks


def _static_gratings_block(config: SimulatorConfig, rng: np.random.Generator) -> pd.DataFrame:
    """All static gratings in random order, one after another from 0 s."""
    conditions = pd.MultiIndex.from_product(
        [STATIC_ORIENTATIONS, STATIC_SPATIAL_FREQUENCIES, STATIC_PHASES],
        names=["orientation", "spatial_frequency", "phase"],
    ).to_frame(index=False)
    trials = rng.permutation(
        np.tile(np.arange(len(conditions)), config.static_trials_per_condition)
    )
    starts = np.arange(len(trials)) * _STATIC_SECONDS
    times = pd.DataFrame({"start": starts, "end": starts + _STATIC_SECONDS})
    return times.join(conditions.iloc[trials].reset_index(drop=True))


def _movie_block(config: SimulatorConfig) -> pd.DataFrame:
    """Every showing of every movie frame, back to back from 0 s."""
    shown = np.arange(config.movie_frames * config.movie_repeats)
    return pd.DataFrame(
        {
            "start": shown / MOVIE_RATE,
            "end": (shown + 1) / MOVIE_RATE,
            "movie_frame": shown % config.movie_frames,
            "repeat": shown // config.movie_frames,
        }
    )


def _simulate_running(
    timestamps: np.ndarray, sampling_rate: float, rng: np.random.Generator
) -> np.ndarray:
    """Speed in cm/s, shape (num_timesteps,): bouts of about 10 s, about 25 s apart."""
    num_bouts = 10 + int(timestamps[-1] / 10)
    rest, bout = rng.exponential(25.0, num_bouts), rng.exponential(10.0, num_bouts)
    edges = np.cumsum(np.stack([rest, bout], axis=1).ravel())
    interval = np.searchsorted(edges, timestamps, side="right")
    is_running = interval % 2 == 1
    speeds = rng.gamma(4.0, 5.0, num_bouts + 1)  # mean 20 cm/s
    wanted = np.where(is_running, speeds[interval // 2], 0.0)
    keep = np.exp(-1 / (0.5 * sampling_rate))  # half a second to speed up and slow down
    smooth = signal.lfilter([1 - keep], [1, -keep], wanted)
    wobble = fluctuate((len(timestamps), 1), 0.3, sampling_rate, rng)[:, 0]
    return np.asarray(smooth * (1 + 0.15 * wobble) + 0.1 * wobble)


def _simulate_pupil(
    timestamps: np.ndarray, running: np.ndarray, sampling_rate: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Pupil that widens with running; ``x`` and ``y`` in degrees, ``size`` relative to rest."""
    slow = fluctuate((len(timestamps), 1), 10.0, sampling_rate, rng)[:, 0]
    gaze = 3.0 * fluctuate((len(timestamps), 2), 2.0, sampling_rate, rng)
    keep = np.exp(-1 / (2.0 * sampling_rate))  # the pupil follows within two seconds
    arousal = signal.lfilter([1 - keep], [1, -keep], np.tanh(np.maximum(running, 0) / 10))
    size = np.exp(0.4 * arousal + 0.15 * slow)
    return pd.DataFrame({"timestamp": timestamps, "x": gaze[:, 0], "y": gaze[:, 1], "size": size})
