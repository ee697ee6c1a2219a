"""Principal components over units: what the units of a recording do together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class PrincipalModes:
    """Principal components of a population's activity, the largest first."""

    mean: np.ndarray
    """Mean activity of every unit, (num_units,)."""
    loadings: np.ndarray
    """Orthonormal columns, (num_units, num_units)."""
    variance: np.ndarray
    """Variance of the activity along every mode, (num_units,)."""

    @staticmethod
    def measure(windows: np.ndarray) -> PrincipalModes:
        """Measures the modes of windows.

        In the real gratings session the first mode of activity averaged over 2 s holds 34 % of
        the variance, 253 of 254 loadings have one sign, and the direction shown explains 3 % of
        it: it is a gain that all units share (docs/pretraining.md).

        Args:
            windows: Mean activity of units in unlabelled windows, (num_windows, num_units).
        """
        windows = np.asarray(windows, dtype=np.float64)
        mean = windows.mean(axis=0)
        covariance = (windows - mean).T @ (windows - mean) / max(1, len(windows) - 1)
        variance, loadings = np.linalg.eigh(covariance)
        return PrincipalModes(
            mean=mean, loadings=loadings[:, ::-1].copy(), variance=variance[::-1].clip(0)
        )
