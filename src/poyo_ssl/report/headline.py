"""The result in a sentence per task: did pretraining help?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from poyo_ssl.report.formatting import (
    NOTHING,
    format_interval,
    format_p_value,
    format_right,
    format_score,
    is_number,
    metric_title,
    split_title,
    units_title,
)
from poyo_ssl.report.results import (
    SCRATCH,
    RunResults,
    Task,
    in_order_of_interest,
    with_most_labels,
)

PRETRAINED = "pretrained"
"""How the arm that the claim is about is called, or begins, where the run does not say which arms
are pretrained."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """What one task says about pretraining, at all labels and the units of first interest."""

    title: str
    verdict: str
    """``helped``, ``hurt``, ``no sure difference`` or ``not compared``."""
    scores: str
    gain: str
    against_reference: str
    elsewhere: str
    """The same comparison on other units and label fractions, counted."""
    unfinished: str
    """Whether the compared networks might have gone on learning; empty where most had stopped, or
    nothing was compared or validated."""


def compute_headlines(results: RunResults) -> list[Headline]:
    """One headline per task that the summary has; empty without a summary."""
    if results.summary is None:
        return []
    headlines = []
    for task in results.tasks:
        metric = results.main_metric(task)
        summary = results.summary
        rows = summary[
            (summary["task"] == task.name)
            & (summary["split"] == task.split)
            & (summary["metric"] == metric)
        ]
        if not rows.empty:
            curves = results.curves if results.curves is not None else pd.DataFrame()
            headlines.append(_headline(task, metric, rows, _pretrained_arm(results), curves))
    return headlines


def verdict_of(gain_low: float, gain_high: float) -> str:
    """What the paired interval of a gain allows one to say."""
    if not (is_number(gain_low) and is_number(gain_high)):
        return "not compared"
    if gain_low > 0:
        return "helped"
    return "hurt" if gain_high < 0 else "no sure difference"


def _headline(
    task: Task, metric: str, rows: pd.DataFrame, pretrained_name: str | None, curves: pd.DataFrame
) -> Headline:
    units = in_order_of_interest(rows["units"].unique())[0]
    here = with_most_labels(rows[rows["units"] == units])
    fraction = here["label_fraction"].iloc[0]
    networks = here[here["kind"] == "network"].set_index("arm")
    references = here[(here["kind"] == "reference") & (here["arm"] != "chance")].set_index("arm")
    best = references.sort_values("mean").iloc[-1] if len(references) else None
    pretrained, scratch = _row_of(networks, pretrained_name), _row_of(networks, SCRATCH)
    parts = []
    if pretrained is not None:
        parts.append(f"{pretrained_name} {_with_interval(pretrained, metric)}")
    if scratch is not None:
        parts.append(f"from scratch {_with_interval(scratch, metric)}")
    if best is not None:
        parts.append(f"best reference decoder ({best.name}) {_with_interval(best, metric)}")
    if is_number(task.chance):
        parts.append(f"chance {format_score(task.chance, metric)}")
    verdict, gain = "not compared", _without_pretraining(here)
    if pretrained is not None:
        verdict = verdict_of(pretrained["gain_low"], pretrained["gain_high"])
        gain = _gain_sentence(verdict, pretrained, metric)
    labels = "" if fraction == 1 else f", labels: {here['labels'].iloc[0]}"
    return Headline(
        title=f"{task.title}: {metric_title(metric)} on {split_title(task.split)}, "
        f"{units_title(units).lower()}{labels}",
        verdict=verdict,
        scores=_capitalised("; ".join(parts)) + ".",
        gain=gain,
        against_reference=_against_reference(networks, best, metric),
        elsewhere=_elsewhere(rows, pretrained_name),
        unfinished=_unfinished(curves, task, units, fraction, (SCRATCH, pretrained_name)),
    )


def _row_of(rows: pd.DataFrame, arm: str | None) -> pd.Series | None:
    found = rows[rows.index == arm]
    return found.iloc[0] if len(found) else None


def _pretrained_arm(results: RunResults) -> str | None:
    """The first of the run's pretrainings that was scored: the one that the claim is about."""
    arms = list(results.scores["arm"].unique())
    pretrainings = (results.run.get("config") or {}).get("pretrainings") or {}
    named = sorted(
        (arm for arm in arms if arm.startswith(PRETRAINED)), key=lambda arm: arm != PRETRAINED
    )
    return next((arm for arm in [*pretrainings, *named] if arm in arms), None)


def _with_interval(row: pd.Series, metric: str) -> str:
    """The mean with its interval, and the counts where they are small."""
    low, high = row["low"], row["high"]
    score = format_score(row["mean"], metric)
    counts = format_right(row["num_right"], row["num_test"])
    if counts != NOTHING:
        score = f"{score} ({counts})"
    return f"{score} {format_interval(low, high, metric)}" if is_number(low) else score


def _gain_sentence(verdict: str, pretrained: pd.Series, metric: str) -> str:
    if verdict == "not compared":
        return _gain_without_interval(pretrained, metric)
    words = {
        "helped": "Pretraining helped",
        "hurt": "Pretraining hurt",
        "no sure difference": "Pretraining made no sure difference",
    }[verdict]
    gain = format_score(pretrained["gain_over_scratch"], metric, signed=True)
    interval = format_interval(pretrained["gain_low"], pretrained["gain_high"], metric, signed=True)
    return f"{words}: {gain} {interval} over scratch{_p_text(pretrained['p_value'])}."


def _gain_without_interval(pretrained: pd.Series, metric: str) -> str:
    gain = pretrained["gain_over_scratch"]
    if not is_number(gain):
        return "The pretrained network was not compared with scratch."
    return (
        f"{format_score(gain, metric, signed=True)} over scratch, which is too little data to say "
        "whether pretraining helped: run it with more seeds."
    )


def _without_pretraining(rows: pd.DataFrame) -> str:
    """The best decoder against chance, where nothing was pretrained."""
    absent = "There is no pretrained network to compare with scratch."
    tested = rows[rows["chance_p_value"].notna()]
    if tested.empty:
        return absent
    best = tested.sort_values("mean").iloc[-1]
    p_text = _p_text(best["chance_p_value"])
    verdict = "decodes above" if best["chance_p_value"] < 0.05 else "is not surely above"
    sentence = f"{best['arm']} {verdict} chance{p_text}."
    return f"{_capitalised(sentence)} {absent}" if rows["arm"].eq(SCRATCH).any() else sentence


def _p_text(p_value: float) -> str:
    if not is_number(p_value):
        return ""
    text = format_p_value(p_value)
    return f", p {text}" if text.startswith("<") else f", p = {text}"


def _against_reference(networks: pd.DataFrame, best: pd.Series | None, metric: str) -> str:
    if best is None or networks.empty:
        return ""
    row = networks.sort_values("mean").iloc[-1]
    name = f"The best network ({row.name}, {_with_interval(row, metric)})"
    difference = row["mean"] - best["mean"]
    if format_score(difference, metric, signed=True).strip("+-\N{MINUS SIGN}0.") == "":
        return f"{name} equals the best reference decoder ({best.name})."
    side = "above" if difference > 0 else "below"
    return (
        f"{name} scores {format_score(abs(difference), metric)} {side} "
        f"the best reference decoder ({best.name})."
    )


def _elsewhere(rows: pd.DataFrame, pretrained_name: str | None) -> str:
    compared = rows[rows["arm"] == pretrained_name]
    verdicts = Counter(
        verdict_of(low, high)
        for low, high in zip(compared["gain_low"], compared["gain_high"], strict=True)
    )
    del verdicts["not compared"]
    num_compared = verdicts.total()
    if num_compared < 2:
        return ""
    return (
        f"Over all {num_compared} comparisons of this task (units and label fractions) pretraining "
        f"helped in {verdicts['helped']}, hurt in {verdicts['hurt']} and made no sure difference "
        f"in {verdicts['no sure difference']}."
    )


def _unfinished(
    curves: pd.DataFrame, task: Task, units: str, fraction: float, arms: tuple[str | None, ...]
) -> str:
    """How many of the compared networks were best when they were validated for the last time."""
    if curves.empty or None in arms:
        return ""
    validated = curves[
        (curves["task"] == task.name)
        & (curves["units"] == units)
        & (curves["label_fraction"] == fraction)
        & curves["arm"].isin(arms)
        & (curves["metric"] == "valid/loss")
    ]
    fits = [fit.sort_values("step")["value"] for _, fit in validated.groupby(["arm", "seed"])]
    num_unfinished = sum(bool(loss.iloc[-1] <= loss.min()) for loss in fits)
    if 2 * num_unfinished <= len(fits):
        return ""
    return (
        f"{num_unfinished} of these {len(fits)} networks had their lowest validation loss at the "
        "end of training: they had not stopped learning, and this is about fits of that length "
        "only. Give them more steps (training.max_steps) before concluding anything."
    )


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
