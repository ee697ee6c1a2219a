"""Latents in the plane, and tuning."""

from __future__ import annotations

import numpy as np
import pytest

import poyo_ssl as ps


class FirstTwo:
    def fit_transform(self, X):
        return X[:, :2]


def test_tuning_is_the_mean_response_to_each_label(rng):
    X, y = rng.normal(size=(6, 4, 2)), np.array(["b", "a", "b", "a", "b", "a"])
    curves = ps.tuning_curves(X, y, ["cell 1", "cell 2"])
    assert curves.index.tolist() == ["a", "b"]
    assert np.isclose(curves.loc["b", "cell 2"], X[[0, 2, 4], :, 1].mean())
    assert np.allclose(ps.tuning_curves(X.mean(axis=1), y), curves)


def test_tuning_of_something_else_than_trials_is_refused(rng):
    with pytest.raises(ValueError, match=r"got \(6,\)"):
        ps.tuning_curves(np.zeros(6), np.zeros(6))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ps.tuning_curves(np.zeros((6, 2)), np.zeros(5))


def test_every_label_has_its_own_look(rng):
    labels = np.repeat(np.arange(12), 3)
    axes = ps.plot_latents(rng.normal(size=(36, 5)), labels)
    looks = {
        (
            tuple(drawn.get_facecolor()[0]),
            tuple(drawn.get_edgecolor()[0]) if len(drawn.get_edgecolor()) else (),
        )
        for drawn in axes.collections
    }
    assert len(looks) == 12
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(map(str, range(12)))


def test_numbers_are_colours_of_a_scale_and_projections_are_ones_own(rng):
    latents = rng.normal(size=(40, 5))
    axes = ps.plot_latents(latents, rng.normal(size=40), projection=FirstTwo())
    assert np.allclose(axes.collections[0].get_offsets(), latents[:, :2])
    assert axes.get_xlabel() == "FirstTwo 1"
    assert len(axes.figure.axes) == 2  # and the colour bar
