"""How many answers are right."""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix


def accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Fraction of labels that are right.

    Args:
        predicted: Integer labels, shape (num_trials,).
        true: What was shown, the same shape.
    """
    _check_labels(predicted, true)
    return float(np.mean(predicted == true))


def balanced_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean over the classes that were shown of the fraction of their trials that is right.

    Chance is one over the number of classes even where some were shown more often than others.

    Args:
        predicted: Integer labels, shape (num_trials,).
        true: What was shown, the same shape.
    """
    _check_labels(predicted, true)
    return float(np.mean([np.mean(predicted[true == shown] == shown) for shown in np.unique(true)]))


def confusion_matrix(predicted: np.ndarray, true: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each class was taken for each.

    Args:
        predicted: Integer labels in [0, num_classes), shape (num_trials,).
        true: What was shown, the same shape.
        num_classes: Number of classes, whether or not all were shown.

    Returns:
        Counts, shape (num_classes, num_classes): row shown, column predicted.
    """
    _check_labels(predicted, true)
    for name, labels in (("predicted", predicted), ("true", true)):
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"{name} labels must lie in 0 to {num_classes - 1} for {num_classes} classes, got "
                f"{labels.min()} to {labels.max()}. Leave blank sweeps out before scoring."
            )
    one, two = (torch.from_numpy(labels.astype(np.int64)) for labels in (predicted, true))
    return multiclass_confusion_matrix(one, two, num_classes=num_classes).numpy()


def _check_labels(predicted: np.ndarray, true: np.ndarray) -> None:
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(
            "predicted and true labels must both have shape (num_trials,), got "
            f"{predicted.shape} and {true.shape}. Take the argmax of logits first."
        )
    if predicted.size == 0:
        raise ValueError("There are no labels to score.")
    for name, labels in (("predicted", predicted), ("true", true)):
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"{name} labels must be integers, got {labels.dtype}. "
                "Number the classes from 0, and leave blank (NaN) sweeps out."
            )
