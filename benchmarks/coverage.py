"""How often intervals of scores hold the truth, and how often the test against chance errs.

    python benchmarks/coverage.py

Scores are simulated from models whose expectation is known in closed form: right and wrong trials
from a probit model with effects of seeds, trials and recordings, similarities of pictures from an
autoregression. Writes benchmarks/results/coverage.json and coverage.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import scipy.stats

from poyo_ssl.metrics.chance import minus_square_error, permutation_p_value
from poyo_ssl.metrics.intervals import (
    Interval,
    gain_interval,
    mean_interval,
    proportion_interval,
    seed_interval,
)
from poyo_ssl.metrics.scales import scale_of

REPEATS = 2000
SHARES = (0.125, 0.3, 0.5, 0.7, 0.9, 0.97)
COLUMNS = ("interval", "of", "covered", "width", "nominal")
ACCURACY, SSIM = scale_of("accuracy"), scale_of("ssim")


@dataclass(frozen=True, kw_only=True)
class Design:
    """How trials are answered: effects on the probit scale, whose noise of single answers is 1."""

    num_recordings: int = 1
    num_seeds: int = 1
    num_trials: int = 32
    seeds: float = 0.3
    """Spread of networks."""
    trials: float = 1.0
    """Spread of how hard trials are."""
    recordings: float = 0.4
    """Spread of recordings."""

    def draw(
        self, rng: np.random.Generator, *centres: float
    ) -> tuple[list[list[np.ndarray]], list[float]]:
        """Scores of each arm and recording, and the expectation of each arm.

        Arms share recordings and trials. The expectation is over what the interval is about: over
        seeds and recordings only where there are three of them.
        """
        hardness = rng.normal(0, self.trials, (self.num_recordings, self.num_trials))
        place = rng.normal(0, self.recordings, self.num_recordings)
        arms, truths = [], []
        for centre in centres:
            skill = rng.normal(0, self.seeds, self.num_seeds)
            level = centre + skill[:, None] + place  # (seeds, recordings)
            noise = rng.normal(size=(self.num_recordings, self.num_seeds, self.num_trials))
            right = level.T[:, :, None] + hardness[:, None] + noise > 0
            arms.append(list(right.astype(float)))
            unknown = 1 + self.trials**2
            known = np.full((1, 1), centre)
            if self.num_seeds < 3:
                known = known + skill[:, None]
            else:
                unknown += self.seeds**2
            if self.num_recordings < 3:
                known = known + place
            else:
                unknown += self.recordings**2
            truths.append(float(scipy.stats.norm.cdf(known / np.sqrt(unknown)).mean()))
        return arms, truths


def centre_of(share: float, design: Design) -> float:
    """Where the probit model is right in such a share of trials."""
    total = 1 + design.trials**2 + design.seeds**2 + design.recordings**2
    return float(scipy.stats.norm.ppf(share) * np.sqrt(total))


def covers(interval: Interval, truth: float) -> tuple[bool, float]:
    return interval.low <= truth <= interval.high, interval.high - interval.low


def coverage(draw: Callable[[np.random.Generator], tuple[bool, float]], repeats: int) -> dict:
    """Share of repeats that were covered, and the mean width."""
    rng = np.random.default_rng(0)
    hits = np.array([draw(rng) for _ in range(repeats)], dtype=float)
    return {"covered": float(hits[:, 0].mean()), "width": float(hits[:, 1].mean())}


def one_accuracy() -> Iterator[dict]:
    """Exactly, by summing over all outcomes: on average over true accuracies, and at the worst."""
    shares = np.linspace(0.005, 0.995, 199)
    for num_trials in (8, 16, 32, 64, 200):
        bounds = [proportion_interval(k, num_trials) for k in range(num_trials + 1)]
        low, high = (np.array([b[at] for b in bounds]) for at in (1, 2))
        chances = scipy.stats.binom.pmf(np.arange(num_trials + 1), num_trials, shares[:, None])
        is_covered = (low <= shares[:, None]) & (shares[:, None] <= high)
        covered = (chances * is_covered).sum(axis=1)
        yield {
            "interval": "one accuracy (Wilson)",
            "of": f"{num_trials} trials; at the worst accuracy {covered.min():.3f}",
            "covered": float(covered.mean()),
            "width": float((chances * (high - low)).sum(axis=1).mean()),
            "nominal": True,
        }


def over_seeds(repeats: int) -> Iterator[dict]:
    for num_seeds in (3, 5, 10):
        yield {
            "interval": "mean over seeds (t)",
            "of": f"{num_seeds} seeds, normal",
            **coverage(
                lambda rng, n=num_seeds: covers(seed_interval(rng.normal(0.6, 0.03, n)), 0.6),
                repeats,
            ),
            "nominal": True,
        }
    yield {
        "interval": "mean over seeds (t)",
        "of": "5 seeds, skewed: most near 1 (beta 19, 1)",
        **coverage(lambda rng: covers(seed_interval(rng.beta(19, 1, 5), ACCURACY), 0.95), repeats),
        "nominal": False,
    }


DESIGNS = {
    "1 seed, 1 recording of 16": (Design(num_trials=16), True),
    "1 seed, 1 recording of 64": (Design(num_trials=64), True),
    "2 seeds, 1 recording of 16": (Design(num_seeds=2, num_trials=16), True),
    "2 seeds, 2 recordings of 32": (Design(num_seeds=2, num_recordings=2), True),
    "3 seeds, 1 recording of 32": (Design(num_seeds=3), True),
    "3 seeds, 1 recording of 120": (Design(num_seeds=3, num_trials=120), True),
    "5 seeds, 1 recording of 120": (Design(num_seeds=5, num_trials=120), True),
    "5 seeds that differ much, 1 recording of 120": (
        Design(num_seeds=5, num_trials=120, seeds=0.8),
        True,
    ),
    "3 seeds, 3 recordings of 64": (Design(num_seeds=3, num_recordings=3, num_trials=64), True),
    "3 seeds, 6 recordings of 64": (Design(num_seeds=3, num_recordings=6, num_trials=64), True),
    "5 seeds, 12 recordings of 64": (Design(num_seeds=5, num_recordings=12, num_trials=64), True),
}


def right_or_wrong(repeats: int) -> Iterator[dict]:
    for name, (design, is_nominal) in DESIGNS.items():

        def mean(rng: np.random.Generator, design: Design = design) -> tuple[bool, float]:
            (arm,), (truth,) = design.draw(rng, centre_of(rng.choice(SHARES), design))
            return covers(mean_interval(arm, ACCURACY), truth)

        def gain(rng: np.random.Generator, design: Design = design) -> tuple[bool, float]:
            shares = rng.choice(SHARES[:5], 2)
            arms, truths = design.draw(rng, *(centre_of(share, design) for share in shares))
            return covers(Interval(*gain_interval(*arms, ACCURACY)[:3]), truths[0] - truths[1])

        yield {"interval": "accuracy", "of": name, **coverage(mean, repeats), "nominal": is_nominal}
        yield {
            "interval": "gain of accuracy, paired",
            "of": name,
            **coverage(gain, repeats),
            "nominal": is_nominal,
        }


def draw_similarity(
    rng: np.random.Generator, likeness: float, num_seeds: int, num_windows: int
) -> np.ndarray:
    """SSIM of windows that resemble their neighbours, (num_seeds, num_windows), 0.4 in the mean."""
    noise = rng.normal(0, np.sqrt(1 - likeness**2), num_windows + 200)
    shared = scipy.signal.lfilter([1], [1, -likeness], noise)[200:]
    # the interval of fewer than three seeds is about these networks, here all alike
    networks = rng.normal(0, 0.01, (num_seeds, 1)) if num_seeds >= 3 else 0.0
    return 0.4 + 0.1 * shared + networks + rng.normal(0, 0.03, (num_seeds, num_windows))


def similarities(repeats: int) -> Iterator[dict]:
    for likeness, num_seeds, num_windows, is_nominal in (
        (0.0, 1, 100, True),
        (0.0, 3, 100, True),
        (0.5, 3, 100, True),
        (0.9, 3, 100, False),
        (0.9, 3, 900, True),
        (0.98, 3, 900, False),
    ):

        def mean(
            rng: np.random.Generator,
            rho: float = likeness,
            seeds: int = num_seeds,
            windows: int = num_windows,
        ) -> tuple[bool, float]:
            scores = draw_similarity(rng, rho, seeds, windows)
            return covers(mean_interval([scores], SSIM), 0.4)

        yield {
            "interval": "SSIM",
            "of": f"{num_seeds} seed{'s' * (num_seeds > 1)}, {num_windows} windows, correlation of "
            f"neighbours {likeness:g}",
            **coverage(mean, repeats),
            "nominal": is_nominal,
        }


def chance_errors(repeats: int) -> Iterator[dict]:
    """How often p <= 0.05 for answers that know nothing, but drift."""
    rng = np.random.default_rng(0)

    def drift(num: int, likeness: float) -> np.ndarray:
        noise = rng.normal(size=num + 200)
        return scipy.signal.lfilter([1], [1, -likeness], noise)[200:]

    def answers(num: int) -> np.ndarray:
        values = drift(num, 0.95)
        return np.digitize(values, np.quantile(values, np.arange(1, 8) / 8))[None]

    cases = {
        "8 labels in random order, 16 trials": lambda: permutation_p_value(
            [answers(16)], [rng.integers(0, 8, 16)]
        ),
        "8 labels in random order, 120 trials": lambda: permutation_p_value(
            [answers(120)], [rng.integers(0, 8, 120)]
        ),
        "8 labels in runs of 5, 120 trials": lambda: permutation_p_value(
            [answers(120)], [np.repeat(rng.integers(0, 8, 24), 5)]
        ),
        "values, correlation of neighbours 0.9, 600 windows": lambda: permutation_p_value(
            [drift(600, 0.9)[None]], [drift(600, 0.9)], minus_square_error
        ),
        "values, correlation of neighbours 0.98, 2000 windows": lambda: permutation_p_value(
            [drift(2000, 0.98)[None]], [drift(2000, 0.98)], minus_square_error
        ),
        "values, correlation of neighbours 0.97, 100 windows": lambda: permutation_p_value(
            [drift(100, 0.97)[None]], [drift(100, 0.97)], minus_square_error
        ),
    }
    for name, draw in cases.items():
        p_values = np.array([draw() for _ in range(repeats)])
        too_short = np.isnan(p_values).mean()
        yield {
            "of": name,
            "errors": float((p_values <= 0.05).mean()),
            "too_short": float(too_short),
        }


def main() -> None:
    started = time.perf_counter()
    rows = [
        *one_accuracy(),
        *over_seeds(REPEATS),
        *right_or_wrong(REPEATS),
        *similarities(REPEATS),
    ]
    errors = list(chance_errors(REPEATS // 4))
    result = {
        "command": "python benchmarks/coverage.py",
        "repeats": REPEATS,
        "seconds": round(time.perf_counter() - started),
        "coverage": rows,
        "chance": errors,
    }
    folder = Path(__file__).parent / "results"
    (folder / "coverage.json").write_text(json.dumps(result, indent=1) + "\n")
    page = format_markdown(result)
    (folder / "coverage.md").write_text(page)
    print(page)


def format_markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`",
        "",
        f"95 % intervals on {result['repeats']} simulated experiments each (standard error of a "
        "coverage 0.005). True accuracies from 0.125 to 0.97. Rows marked with * break an "
        "assumption.",
        "",
        "| interval of | data | covered | mean width |",
        "|---|---|---|---|",
    ]
    for row in result["coverage"]:
        mark = "" if row["nominal"] else " *"
        lines.append(
            f"| {row['interval']} | {row['of']}{mark} | {row['covered']:.3f} | {row['width']:.3f} |"
        )
    lines += [
        "",
        f"Test against chance of answers that know nothing and drift, {result['repeats'] // 4} "
        "experiments each (standard error 0.01).",
        "",
        "| labels | p ≤ 0.05 | too short to tell |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['of']} | {row['errors']:.3f} | {row['too_short']:.3f} |"
        for row in result["chance"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
