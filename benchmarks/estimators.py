"""Cross-validated accuracy of the scikit-learn estimators on the real gratings session.

    python benchmarks/estimators.py --data ../shared/data

Five folds of runs of trials (StratifiedGroupKFold), direction of 8, all units; beside ridge on the
mean activity of a trial, by scikit-learn alone. Then a decoder of one animal is brought to others
of which few trials have labels. Writes benchmarks/results/estimators.json and .md; takes 15
minutes on one core that other jobs share.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import poyo_ssl as ps
from poyo_ssl.comparison.run_directory import describe_hardware

SESSION = "sub-527550471_ses-527745328-StimA_ophys.nwb"
ANIMALS = [f"park_gratings/mrcuts{number}.npz" for number in (24, 25, 27, 28, 30)]
PER_CLASS = 2
PENALTIES = np.logspace(0, 6, 13)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    result = {
        "command": f"python benchmarks/estimators.py --data {options.data}",
        "hardware": describe_hardware(),
        "cross_validation": cross_validate(options.data / SESSION),
        "adaptation": adapt([options.data / animal for animal in ANIMALS]),
    }
    results = Path(__file__).parent / "results"
    (results / "estimators.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "estimators.md").write_text(format_markdown(result))
    print(format_markdown(result))


def cross_validate(file: Path) -> list[dict]:
    [session] = ps.load_recordings([file])
    X, y, groups = ps.trials(session, "direction")
    rate, folds = session.sampling_rate, StratifiedGroupKFold(5)
    ridge = (StandardScaler(), RidgeClassifierCV(PENALTIES))
    estimators = {
        "`PoyoClassifier()`": ps.PoyoClassifier(sampling_rate=rate),
        "`PoyoClassifier(teacher=False)`": ps.PoyoClassifier(sampling_rate=rate, teacher=False),
        "ridge on `PoyoEncoder()`": make_pipeline(ps.PoyoEncoder(sampling_rate=rate), *ridge),
        "ridge on `PoyoEncoder(max_steps=0)`": make_pipeline(
            ps.PoyoEncoder(sampling_rate=rate, max_steps=0), *ridge
        ),
        "ridge on mean activity": make_pipeline(FunctionTransformer(mean_activity), *ridge),
    }
    rows = []
    for name, estimator in estimators.items():
        started = time.process_time()
        scores = cross_val_score(estimator, X, y, groups=groups, cv=folds)
        seconds = (time.process_time() - started) / len(scores)
        rows.append({"estimator": name, "scores": scores.tolist(), "cpu_seconds": seconds})
        print(rows[-1], flush=True)
    return rows


def mean_activity(X: np.ndarray) -> np.ndarray:
    return X.mean(axis=1)


def adapt(files: list[Path]) -> list[dict]:
    """Accuracy on what is left of each animal, without and with what the one before learned."""
    animals = [(session, ps.trials(session, "direction")) for session in ps.load_recordings(files)]
    decoders = [
        ps.PoyoClassifier(sampling_rate=session.sampling_rate, teacher=False).fit(X, y)
        for session, (X, y, _) in animals
    ]
    rows = []
    for index, (session, (X, y, _)) in enumerate(animals):
        rng = np.random.default_rng(index)
        learned = np.concatenate(
            [rng.permutation(np.flatnonzero(y == label))[:PER_CLASS] for label in np.unique(y)]
        )
        rest = np.setdiff1d(np.arange(len(y)), learned)
        other, few = decoders[index - 1], (X[learned], y[learned])
        rate = session.sampling_rate
        ways = {
            "fresh": ps.PoyoClassifier(sampling_rate=rate, teacher=False).fit(*few),
            **{way: other.adapt(*few, transfer=way) for way in ("full", "layerwise", "units")},
            "fresh, taught by ridge": ps.PoyoClassifier(sampling_rate=rate).fit(*few),
        }
        scores = {way: decoder.score(X[rest], y[rest]) for way, decoder in ways.items()}
        rows.append({"recording": session.recording_id, **scores})
        print(rows[-1], flush=True)
    return rows


def format_markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`, {result['hardware']}",
        "",
        "| estimator | accuracy | lowest and highest fold | CPU seconds a fold |",
        "|---|---|---|---|",
    ]
    for row in result["cross_validation"]:
        scores = row["scores"]
        lines.append(
            f"| {row['estimator']} | {np.mean(scores):.3f} | {min(scores):.3f}, {max(scores):.3f} "
            f"| {row['cpu_seconds']:.0f} |"
        )
    [first, *_] = result["adaptation"]
    lines += ["", "| " + " | ".join(first) + " |", "|---" * len(first) + "|"]
    for row in result["adaptation"]:
        name, *scores = row.values()
        lines.append(f"| {name} | " + " | ".join(f"{score:.3f}" for score in scores) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
