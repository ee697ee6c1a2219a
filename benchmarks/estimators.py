"""Cross-validated accuracy of the scikit-learn estimators on the real gratings session.

    python benchmarks/estimators.py --data ../shared/data

Five folds of runs of trials (StratifiedGroupKFold), direction of 8, all units; beside ridge on the
mean activity of a trial, by scikit-learn alone. Then a decoder of half of the units is brought to
the other half, of which few trials have labels. Writes benchmarks/results/estimators.json and .md;
takes half an hour on one core that other jobs share.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import poyo_ssl as ps
from poyo_ssl.comparison.run_directory import describe_hardware

SESSION = "sub-527550471_ses-527745328-StimA_ophys.nwb"
PER_CLASS, DRAWS = 5, 3
WAYS = ("full", "layerwise", "units")
PENALTIES = np.logspace(0, 6, 13)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    result = {
        "command": f"python benchmarks/estimators.py --data {options.data}",
        "hardware": describe_hardware(),
        "cross_validation": cross_validate(options.data / SESSION),
        "adaptation": adapt(options.data / SESSION),
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


def adapt(file: Path) -> list[dict]:
    """Accuracy of a decoder of few labels, without and with what one of other units learned.

    Two halves of the units stand for two animals: the first decoder learns from one of them, the
    others from ``PER_CLASS`` labels of each direction and the other half. All are tested on one
    fold, of which neither has learned.
    """
    [session] = ps.load_recordings([file])
    X, y, groups = ps.trials(session, "direction")
    train, test = next(StratifiedGroupKFold(5).split(X, y, groups))
    rate = session.sampling_rate
    rows = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        one, two = np.array_split(rng.permutation(X.shape[2]), 2)
        few = np.concatenate(
            [rng.permutation(train[y[train] == label])[:PER_CLASS] for label in np.unique(y)]
        )
        fresh = ps.PoyoClassifier(sampling_rate=rate, teacher=False, random_state=draw)
        other = clone(fresh).fit(X[train][..., one], y[train])
        learned = X[few][..., two], y[few]
        decoders = {
            "fresh": fresh.fit(*learned),
            **{f"`{way}`": other.adapt(*learned, transfer=way) for way in WAYS},
            "fresh, taught by ridge": clone(fresh).set_params(teacher=True).fit(*learned),
        }
        shown = X[test][..., two], y[test]
        rows.append({name: decoder.score(*shown) for name, decoder in decoders.items()})
        print(rows[-1], flush=True)
    return rows


def format_markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`",
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
    lines += ["", "| adapted to other units | accuracy | of each draw |", "|---|---|---|"]
    for name in result["adaptation"][0]:
        scores = [row[name] for row in result["adaptation"]]
        each = ", ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {name} | {np.mean(scores):.3f} | {each} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
