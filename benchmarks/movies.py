"""Tells which frame of a movie a mouse sees: look-ups, a filter over frames, and the network.

    python benchmarks/movies.py ../shared/data/swdb_movie/swdb2016.npz [--networks 7]
    python benchmarks/movies.py DATA --test_on FILE
    python benchmarks/movies.py ../shared/data/allen_movies

Every repeat of natural movie one is left out in turn, the last one first, and told by decoders that
are fitted on all others, as a share of its frames that are found within 1 s:

- the look-up as it was: five bins, the mean response of each frame by itself, nothing chosen;
- the look-up, the gaussian one (``frame posterior``) and the filter, with all that they choose
  chosen on training repeats;
- networks, alone and added to the look-up, each repeat with a seed of its own; of the first
  ``--ablated`` repeats also without the look-up as teacher, and without soft targets.

Of a folder of recordings, every one is told by look-ups that are fitted on another day of the same
cells, in windows of 1 s: all pairs of sessions that share cells, both ways. Takes a minute.

With ``--test_on``, decoders are fitted on all of DATA and asked about every repeat in FILE, which
nobody chose anything with. Windows end 0.3 s after the frame asked about: of 1 s; of 1 s, of events
that decay in 0.3 s (see ``ps.convolve_events``); and of 3 s.

Writes benchmarks/results/movies.json and .md after every fit, and goes on where it was stopped;
``--fresh`` begins anew. Takes half an hour on two cores.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
import torch

import poyo_ssl as ps
from poyo_ssl.comparison.arms import ARMS
from poyo_ssl.comparison.run_directory import describe_hardware
from poyo_ssl.decoders.frame_decoders import FrameFilter, FramePosterior, NearestFrame
from poyo_ssl.decoders.frame_templates import FrameTemplates, Showings, TemplateOptions
from poyo_ssl.finetuning.answering import balance
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teachers import frame_templates
from poyo_ssl.windows.tasks import presentation_period

SECOND, OTHER_MOVIE = "movie_frame", "movie_two_frame"
NUM_SHUFFLES = 10
"""Draws of other places for the units of a mouse."""
WINDOWS = {
    "1 s, decaying events": (SECOND, 0.3),
    "1 s": (SECOND, 0.0),
    "3 s": ("movie_frame,window_offset=-2.7,window_length=3", 0.0),
}
"""Name to task and decay of events in seconds."""
LEARNED = "1 s, decaying events"
"""The windows of networks."""
VARIANTS = {
    "soft targets, teacher": {"width": 0.2, "is_taught": True},
    "soft targets": {"width": 0.2, "is_taught": False},
    "one-hot targets": {"width": 0.0, "is_taught": False},
}
LeftOut = tuple[int, int, Setting, list]
"""The repeat left out (-1 for those of another file), seed, what is fitted, and what is scored."""
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--test_on", type=Path, help="repeats that were kept back")
    parser.add_argument("--networks", type=int, default=7, help="repeats that networks tell")
    parser.add_argument("--ablated", type=int, default=2, help="those that poorer networks tell")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--fresh", action="store_true", help="begin anew")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.data.is_dir():
        across_days(options.data)
        across_mice(options.data)
        return
    name = "movies" if options.test_on is None else "movies_kept_back"
    path = RESULTS / f"{name}.json"
    asked = f" --test_on {options.test_on.name}" if options.test_on else ""
    result = {
        "command": f"python benchmarks/movies.py {options.data.name}{asked} "
        f"--networks {options.networks} --ablated {options.ablated} --steps {options.steps} "
        f"--members {options.members}",
        "hardware": describe_hardware(),
        "scores": [],
    }
    if path.exists() and not options.fresh:
        result["scores"] = json.loads(path.read_text())["scores"]
    for rows in fit_all(options, done={row["fit"] for row in result["scores"]}):
        result["scores"] += rows
        path.write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text(format_markdown(result))
        print(*rows, sep="\n", flush=True)
    print(format_markdown(result))


def across_days(folder: Path) -> None:
    """Scores of every session by look-ups that know another one of the same cells alone."""
    recordings = ps.load_recordings(folder)
    rows = []
    for known, asked in permutations(recordings, 2):
        shared = len(set(known.unit_ids) & set(asked.unit_ids))
        if not shared:
            continue
        splits = ps.SplitConfig(train=(known.recording_id,), test=(asked.recording_id,))
        divided = ps.divide([known, asked], SECOND, splits)
        scores = closed_forms((0, 0, setting_of(divided, SECOND, 0), list(divided)))
        pair = {"from": known.recording_id, "to": asked.recording_id, "shared_units": shared}
        rows.append({**pair, **scores})
        print(rows[-1], flush=True)
    save_table(folder, "movies_across_days", rows, num_words=3)


def across_mice(folder: Path) -> None:
    """Scores of every session that shows movie two by other mice that do, without own showings."""
    mouse = pd.read_csv(folder / "sessions.csv", dtype=str).set_index("recording_id")["mouse"]
    recordings = ps.load_recordings(folder)
    rows = []
    for asked in [r for r in recordings if "natural_movie_two" in r.stimuli]:
        name = asked.recording_id
        others = [r for r in recordings if mouse[r.recording_id] != mouse[name]]
        learned = ps.SplitConfig(train=tuple(r.recording_id for r in others))
        told = ps.SplitConfig(  # one frame is left to learn from, since a split needs some
            held_out_column="movie_frame", held_out_values=tuple(range(1, 900)), valid_fraction=0
        )
        divided = ps.divide([asked], OTHER_MOVIE, told)
        setting = setting_of(divided, OTHER_MOVIE, 0)
        setting = replace(setting, earlier=ps.divide(others, [SECOND, OTHER_MOVIE], learned))
        scores = {}
        for arm, num_draws in (("aligned frame", 1), ("aligned frame, shuffled", NUM_SHUFFLES)):
            drawn = [ARMS[arm].fit(replace(setting, seed=seed))[0] for seed in range(num_draws)]
            scores[arm] = float(np.mean([found(decoder, list(divided)) for decoder in drawn]))
        rows.append(
            {"to": name, "mouse": mouse[name], "recordings_of_others": len(others), **scores}
        )
        print(rows[-1], flush=True)
    save_table(folder, "movies_across_mice", rows, num_words=3)


def save_table(folder: Path, name: str, rows: list[dict], num_words: int) -> None:
    """Writes scores and their mean; the first columns are words."""
    result = {
        "command": f"python benchmarks/movies.py {folder.name}",
        "hardware": describe_hardware(),
        "scores": rows,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    table = pd.DataFrame(rows)
    names = list(table)
    mean = {column: table[column].mean() for column in names[num_words:]}
    words = {**dict.fromkeys(names[:num_words], ""), names[0]: "mean"}
    lines = [
        f"`{result['command']}`",
        "",
        f"{json.dumps(result['hardware'])}. Share of movie frames found within 1 s (chance 0.067).",
        "",
        f"| {' | '.join(names).replace('_', ' ')} |",
        "|---" * len(names) + "|",
    ]
    for row in [*rows, {**words, **mean}]:
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")


def fit_all(options: argparse.Namespace, done: set[str]) -> Iterator[list[dict]]:
    """Rows of scores of one fit after the other, without those that are done."""
    for name, (task, decay) in WINDOWS.items():
        repeats = list(leave_out(options, task, decay))
        for left_out in repeats:
            fit = f"{name}, closed forms, repeat {left_out[0]}"
            if fit not in done:
                yield as_rows(fit, name, left_out, closed_forms(left_out))
        if name == LEARNED:
            yield from fit_networks(options, repeats, done)


def fit_networks(
    options: argparse.Namespace, repeats: list[LeftOut], done: set[str]
) -> Iterator[list[dict]]:
    """The same of networks; of the poorer ones the first repeats alone."""
    for number, (variant, how) in enumerate(VARIANTS.items()):
        for left_out in repeats[: options.ablated if number else options.networks]:
            size = f"{options.members} members, {options.steps} steps"
            fit = f"{variant}, {size}, repeat {left_out[0]}"
            if fit not in done:
                config = ps.FinetuningConfig(
                    members=options.members,
                    frame_width=how["width"],
                    training=ps.TrainingConfig(max_steps=options.steps, patience=None, jitter=0.2),
                    teacher=ps.TeacherConfig(unlabelled_fraction=0.5),
                )
                scores = networks(left_out, variant, config, is_taught=how["is_taught"])
                yield as_rows(fit, LEARNED, left_out, scores)


def leave_out(options: argparse.Namespace, task: str, decay: float) -> Iterator[LeftOut]:
    """Every repeat left out in turn, from the last to the first."""
    source = ps.SourceConfig(event_decay=decay)
    [recording] = ps.load_recordings(options.data, source)
    if options.test_on is not None:
        divided = ps.divide([recording], task, ps.SplitConfig(train=(recording.recording_id,)))
        yield -1, 0, setting_of(divided, task, 0), ps.load_recordings(options.test_on, source)
        return
    table = recording.stimuli["natural_movie_one"]
    num_repeats = table["repeat"].nunique()
    found = []
    for fold in range(num_repeats):
        splits = ps.SplitConfig(folds=num_repeats, fold=fold, runs_per_fold=1, valid_fraction=0)
        divided = ps.divide([recording], task, splits)
        [[start, _]] = next(iter(divided[0].splits.values())).test
        found.append((int(table.loc[table["start"] >= start - 1e-6, "repeat"].iloc[0]), divided))
    found.sort(key=lambda pair: -pair[0])
    for seed, (repeat, divided) in enumerate(found):
        yield repeat, seed, setting_of(divided, task, seed), list(divided)


def setting_of(divided: ps.Divided, task: str, seed: int) -> Setting:
    units = {d.recording.recording_id: list(d.recording.unit_ids) for d in divided}
    return Setting(
        population=ps.Population(divided, units),
        task=divided.task(ps.find_task(task)),
        encoder=ps.EncoderConfig(),
        config=ps.FinetuningConfig(),
        seed=seed,
        labels=1.0,
    )


def closed_forms(left_out: LeftOut) -> dict[str, float]:
    _, _, setting, scored = left_out
    [divided] = setting.population.divided.learning(setting.task)
    recording = divided.recording
    pace = 1 / (presentation_period(recording, setting.task) * recording.sampling_rate)
    templates = frame_templates(setting, FrameTemplates)
    decoders = {
        "look-up as it was": NearestFrame(setting.question(""), as_it_was(setting), None),
        "look-up": NearestFrame(setting.question(""), templates, None),
        "gaussian look-up": FramePosterior(
            setting.question(""), frame_templates(setting, FramePosterior.TEMPLATES), None
        ),
        "filter": FrameFilter(setting.question(""), templates, None, pace),
    }
    return {name: found(decoder, scored) for name, decoder in decoders.items()}


def as_it_was(setting: Setting) -> FrameTemplates:
    """Templates of single frames in five bins."""
    [divided] = setting.population.divided.learning(setting.task)
    windows = setting.training_windows(divided)
    showings = Showings(
        features=setting.features(divided, windows, 5),
        movie_frame=windows.target,
        unit_ids=setting.unit_ids(divided),
        frame_period=presentation_period(divided.recording, setting.task),
    )
    num_frames = len(setting.population.divided.classes(setting.task))
    return FrameTemplates.fit(showings, num_frames, TemplateOptions(num_bins=5, width=0.0))


def networks(
    left_out: LeftOut, variant: str, config: ps.FinetuningConfig, *, is_taught: bool
) -> dict[str, float]:
    """Scores of a fit of some members, of one of them, and of both added to the look-up."""
    _, seed, setting, scored = left_out
    templates = frame_templates(setting, FrameTemplates)
    population, task = setting.population, setting.task
    decoder = finetune(
        population, task, None, config, seed=seed, teacher=templates if is_taught else None
    )
    print(f"{variant}: {decoder.fit.seconds:.0f} s", flush=True)
    windows = population.labelled_sources(
        decoder.networks[0].encoder, task, "train", setting.num_timesteps
    )
    scores = {}
    for number, name in ((1, "one network"), (config.members, f"{config.members} networks")):
        members = decoder.networks[:number]
        alone = ps.FrameNetwork(decoder.question, members)
        added = ps.FrameNetwork(decoder.question, members, templates, config.teacher.blend)
        scores[f"{name}, {variant}"] = found(alone, scored)
        scores[f"look-up + {name}, {variant}"] = found(balance(added, windows), scored)
    return scores


def found(decoder: ps.FittedDecoder, scored: list) -> float:
    """Share of frames found within 1 s."""
    return ps.evaluate(decoder, scored).mean()["within_1s"]


def as_rows(fit: str, windows: str, left_out: LeftOut, scores: dict[str, float]) -> list[dict]:
    repeat, seed, _, _ = left_out
    return [
        {
            "fit": fit,
            "windows": windows,
            "repeat": repeat,
            "seed": seed,
            "decoder": decoder,
            "within_1s": round(score, 4),
        }
        for decoder, score in scores.items()
    ]


def format_markdown(result: dict) -> str:
    """Tables of all repeats that a decoder was asked about, and of those that all were."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for row in result["scores"]:
        scores.setdefault((row["windows"], row["decoder"]), {})[row["repeat"]] = row["within_1s"]
    learned = {key: by_repeat for key, by_repeat in scores.items() if key[0] == LEARNED}
    common = set.intersection(*map(set, learned.values())) if learned else set()
    shared = {key: {r: found[r] for r in sorted(common)} for key, found in learned.items()}
    lines = [
        f"`{result['command']}`",
        "",
        f"{json.dumps(result['hardware'])}. Share of movie frames found within 1 s (chance 0.067). "
        "Gains are over the look-up of the same windows and repeats; intervals (95 %, t) are over "
        "repeats, each with a seed of its own.",
        "",
        *format_table(scores),
        "",
        f"Of the repeats that all were asked about ({', '.join(map(str, sorted(common)))}):",
        "",
        *format_table(shared),
    ]
    return "\n".join(lines) + "\n"


def format_table(scores: dict[tuple[str, str], dict[int, float]]) -> list[str]:
    lines = [
        "| windows | decoder | last repeat | repeats | mean | gain over the look-up |",
        "|---|---|---|---|---|---|",
    ]
    for (windows, decoder), by_repeat in scores.items():
        reference = scores[windows, "look-up"]
        gains = np.array([score - reference[repeat] for repeat, score in by_repeat.items()])
        lines.append(
            f"| {windows} | {decoder} | {by_repeat[max(by_repeat)]:.3f} | {len(by_repeat)} | "
            f"{np.mean(list(by_repeat.values())):.3f} | {format_gain(gains)} |"
        )
    return lines


def format_gain(gains: np.ndarray) -> str:
    if not gains.any():
        return ""
    if len(gains) < 3:
        return f"{gains.mean():+.3f}"
    half = scipy.stats.t.ppf(0.975, len(gains) - 1) * scipy.stats.sem(gains)
    return f"{gains.mean():+.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
