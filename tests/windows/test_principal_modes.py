"""Principal modes are those of an independent library, the largest first."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from poyo_ssl.windows.principal_modes import PrincipalModes


def test_modes_are_principal_components(rng):
    windows = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 3.0
    modes, expected = PrincipalModes.measure(windows), PCA().fit(windows)
    assert np.allclose(modes.variance, expected.explained_variance_)
    assert np.allclose(np.abs(modes.loadings.T), np.abs(expected.components_))
    assert np.allclose(modes.mean, expected.mean_)


def test_fewer_windows_than_units_leave_modes_without_variance(rng):
    modes = PrincipalModes.measure(rng.normal(size=(3, 6)))
    assert np.allclose(modes.variance[2:], 0, atol=1e-12)
    assert np.allclose(modes.loadings.T @ modes.loadings, np.eye(6))
