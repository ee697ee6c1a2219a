"""Tests of responses, one for each unit: arrays in, numbers out."""

from __future__ import annotations

import numpy as np
from scipy import sparse, stats

FALSE_DISCOVERIES = 0.05
"""Expected part of the responding units that respond by chance (Benjamini & Hochberg 1995)."""


def count_responding(p_values: np.ndarray, num_tried: int = 1) -> int:
    """Counts the units that respond, with few false discoveries among them.

    Args:
        p_values: Shape (num_units,).
        num_tried: Clocks that were tried before these were chosen (Bonferroni).

    References:
        Benjamini & Hochberg, J. R. Stat. Soc. B 57:289 (1995).
    """
    adjusted = stats.false_discovery_control(np.minimum(num_tried * p_values, 1.0))
    return int((adjusted < FALSE_DISCOVERIES).sum())


def variance_explained(values: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-way analysis of variance of every column.

    Args:
        values: Shape (num_presentations, num_units).
        condition: Index of what each presentation showed, shape (num_presentations,).

    Returns:
        The part of the variance that the condition explains, less what chance explains (ε², which
        can be below 0), and the p-value of the F test; both of shape (num_units,).
    """
    _, condition, counts = np.unique(condition, return_inverse=True, return_counts=True)
    num, num_conditions = len(condition), len(counts)
    between_df, within_df = num_conditions - 1, num - num_conditions
    if between_df < 1 or within_df < 1:
        return np.zeros(values.shape[1]), np.ones(values.shape[1])
    ones = np.ones(num, dtype=values.dtype)
    total = sparse.csr_array((ones, (condition, np.arange(num))), shape=(num_conditions, num))
    sums = (total @ values).astype(float)
    of_mean = np.square(sums.sum(axis=0)) / num
    whole = np.einsum("ij,ij->j", values, values) - of_mean
    between = (np.square(sums) / counts[:, None]).sum(axis=0) - of_mean
    error = np.maximum(whole - between, 0.0) / within_df
    is_varied = whole > 1e-9 * num
    explained = (between - between_df * error) / np.where(is_varied, whole, np.inf)
    ratio = between / between_df / np.where(error > 0, error, np.inf)
    return explained, stats.f.sf(ratio, between_df, within_df)


def correlate_showings(showings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean correlation of all pairs, and its standard deviation under circular shifts."""
    num, num_parts, _ = showings.shape
    showings = showings - showings.mean(axis=1, keepdims=True)
    spread = showings.std(axis=1, keepdims=True)
    showings = showings / np.where(spread > 0, spread, np.inf)
    num_pairs = num * (num - 1) / 2
    squares = np.square(showings).mean(axis=1).sum(axis=0)
    correlation = (np.square(showings.sum(axis=0)).mean(axis=0) - squares) / 2 / num_pairs
    # by Parseval, the mean square over shifts of a pair's correlation is the sum of the products
    # of their power spectra
    power = np.square(np.abs(np.fft.fft(showings, axis=1)) / num_parts)
    of_pairs = (np.square(power.sum(axis=0)) - np.square(power).sum(axis=0)).sum(axis=0) / 2
    return correlation, np.sqrt(of_pairs) / num_pairs


def paired_p_values(change: np.ndarray) -> np.ndarray:
    """The p-values of a t test that the mean over presentations is 0.

    Args:
        change: Of every presentation and unit, shape (num_presentations, num_units).
    """
    error = change.std(axis=0, ddof=1) / np.sqrt(len(change))
    t = np.abs(change.mean(axis=0)) / np.where(error > 0, error, np.inf)
    p_values: np.ndarray = 2 * stats.t.sf(t, len(change) - 1)
    return p_values
