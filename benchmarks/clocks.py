"""What the check of the clock finds where the clock is as listed, shifted, scaled or reversed.

python benchmarks/clocks.py                      # simulated recordings
python benchmarks/clocks.py FILE ...             # recordings of one's own
python benchmarks/clocks.py --only-listed FILE ...
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from poyo_ssl.clock.check import check_clock
from poyo_ssl.recordings.loading import find_recording_files, load_recording
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_recordings

SIMULATED = SimulatorConfig(
    lines=("Sst", "Ntsr1", "Cux2"), recordings_per_line=1, units_per_recording=60,
    grating_trials_per_condition=4, blank_sweeps=8, movie_frames=900, movie_repeats=5,
    static_trials_per_condition=8, spontaneous_duration=60, gap_duration=10, seed=1,
)  # fmt: skip


def wrong_clocks(recording: Recording) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Each maps the true times (s) to those that are listed."""
    first, last = recording.timestamps[[0, -1]]
    clocks: dict[str, Callable[[np.ndarray], np.ndarray]] = {"as listed": lambda t: t}
    for shift in (0.5, -0.5, 2.0, -2.0, 10.0, -10.0):
        clocks[f"{shift:+g} s"] = lambda t, shift=shift: t + shift
    clocks["x 1.001"] = lambda t: 1.001 * t
    clocks["x 1.01"] = lambda t: 1.01 * t
    clocks["in ms"] = lambda t: 1000 * t
    clocks["reversed"] = lambda t: first + last - t
    return clocks


def with_clock(recording: Recording, clock: Callable[[np.ndarray], np.ndarray]) -> Recording:
    """The recording whose stimuli are listed by another clock."""
    stimuli = {}
    for name, table in recording.stimuli.items():
        times = np.sort(clock(table[["start", "end"]].to_numpy(float)), axis=1)
        stimuli[name] = table.assign(start=times[:, 0], end=times[:, 1])
    return replace(recording, stimuli=stimuli)


def recordings(files: list[Path]) -> Iterator[Recording]:
    if files:
        yield from (load_recording(path) for path in find_recording_files(files))
    else:
        yield from simulate_recordings(SIMULATED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--only-listed", action="store_true", help="the right clocks alone")
    options = parser.parse_args()
    print("| recording | clock | stimulus | respond | best lag (s) | as good (s) | s | warning |")
    print("|---|---|---|---|---|---|---|---|")
    for recording in recordings(options.files):
        for name, clock in wrong_clocks(recording).items():
            if options.only_listed and name != "as listed":
                continue
            started = time.perf_counter()
            checks = check_clock(with_clock(recording, clock))
            seconds = time.perf_counter() - started
            for check in checks:
                lag = "–" if check.best_lag is None else f"{check.best_lag:.1f}"
                low_high = check.lag_range
                as_good = "–" if low_high is None else f"{low_high[0]:.1f} to {low_high[1]:.1f}"
                num = "–" if check.num_responding is None else check.num_responding
                said = check.warning or check.note
                print(
                    f"| {recording.recording_id} | {name} | {check.stimulus} | "
                    f"{num} of {check.num_units} | {lag} | {as_good} | {seconds:.1f} | {said} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
