"""Reference decoder of pictures: a ridge to their principal components, in closed form.

Like those of :mod:`~poyo_ssl.decoders.linear`, it is fitted on one recording and keyed by unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from poyo_ssl.decoders.linear import ALPHAS, LinearReadout
from poyo_ssl.metrics.pictures import structural_similarity

NUM_COMPONENTS = 64
"""Principal components of the movie that ridge predicts; they hold nearly all its variance."""
MAX_VALID_WINDOWS = 500
"""Validation windows on which a penalty is chosen, evenly spaced: neighbours differ little."""
NUM_FOLDS = 8
"""Parts of the movie in cross-fitting."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureReadout:
    """Pictures that are linear in the binned activity, through principal components."""

    readout: LinearReadout
    """To the scores of the components."""
    mean_picture: np.ndarray
    """Mean of the training pictures, (height, width)."""
    components: np.ndarray
    """(num_components, height, width)."""

    def pictures(self, scores: np.ndarray) -> np.ndarray:
        """Component scores (num_windows, num_components) -> pictures in [0, 1], float32."""
        pictures = self.mean_picture + np.tensordot(scores, self.components, axes=1)
        clipped: np.ndarray = np.clip(pictures, 0, 1).astype(np.float32)
        return clipped


def find_components(pictures: np.ndarray, movie_frame: np.ndarray) -> PCA:
    """Principal components of the pictures shown, each counted once.

    Args:
        pictures: All pictures in [0, 1], (num_pictures, height, width).
        movie_frame: Which were shown in training, with repetition, (num_windows,).
    """
    shown = np.unique(movie_frame)
    flat = pictures[shown].reshape(len(shown), -1)
    return PCA(min(NUM_COMPONENTS, len(shown) - 1), random_state=0).fit(flat)


def fit_ridge_to_pixels(
    features: np.ndarray,
    movie_frame: np.ndarray,
    valid_features: np.ndarray,
    valid_frame: np.ndarray,
    pictures: np.ndarray,
    components: PCA,
    unit_ids: list[str],
) -> tuple[PictureReadout, np.ndarray]:
    """Ridge from binned activity to the principal components of the training pictures.

    The penalty is the one with the best SSIM on the validation windows (on the training windows'
    last tenth where there are none): the strongest linear decoder in the metric it is read in.

    Args:
        features: Training windows, (num_windows, num_bins * num_units).
        movie_frame: Picture shown, (num_windows,).
        valid_features: Validation windows, (num_valid, num_bins * num_units).
        valid_frame: (num_valid,).
        pictures: All pictures in [0, 1], (num_pictures, height, width).
        components: Components of the pictures shown in training; see :func:`find_components`.
        unit_ids: Units of the features.

    Returns:
        The readout, and the training windows' component scores, each predicted by a ridge that
        did not see that part of the movie (:func:`cross_fit`), (num_windows, num_components).
    """
    scores = components.transform(pictures[movie_frame].reshape(len(movie_frame), -1))
    if len(valid_frame) == 0:
        is_fitted = np.arange(len(features)) < round(0.9 * len(features))
        valid_features, valid_frame = features[~is_fitted], movie_frame[~is_fitted]
    else:
        is_fitted = np.ones(len(features), dtype=bool)
    thinned = slice(None, None, max(1, len(valid_frame) // MAX_VALID_WINDOWS))
    valid_features, valid_frame = valid_features[thinned], valid_frame[thinned]
    center = features[is_fitted].mean(axis=0)

    def valid_ssim(alpha: float) -> float:
        model = Ridge(alpha=alpha).fit(features[is_fitted] - center, scores[is_fitted])
        flat_pictures = components.inverse_transform(model.predict(valid_features - center))
        predicted = np.clip(flat_pictures, 0, 1).reshape(-1, *pictures.shape[1:])
        return float(structural_similarity(predicted, pictures[valid_frame]).mean())

    alpha = max(10 * ALPHAS, key=valid_ssim)
    model = Ridge(alpha=alpha).fit(features - features.mean(axis=0), scores)
    readout = PictureReadout(
        readout=LinearReadout.from_coefficients(
            model.coef_, model.intercept_, features.mean(axis=0), unit_ids
        ),
        mean_picture=components.mean_.reshape(pictures.shape[1:]),
        components=components.components_.reshape(-1, *pictures.shape[1:]),
    )
    return readout, cross_fit(features, scores, movie_frame, alpha)


def cross_fit(
    features: np.ndarray, scores: np.ndarray, movie_frame: np.ndarray, alpha: float
) -> np.ndarray:
    """Ridge predictions of windows by models that saw no window of that part of the movie.

    What a ridge says of its own training windows is too good; a network that learns to correct it
    must see the mistakes that it makes on new movie frames.

    Returns:
        Predicted scores, the shape of ``scores``.
    """
    predicted = np.empty_like(scores)
    parts = np.array_split(np.unique(movie_frame), NUM_FOLDS)
    for part in parts:
        is_left_out = np.isin(movie_frame, part)
        center = features[~is_left_out].mean(axis=0)
        model = Ridge(alpha=alpha).fit(features[~is_left_out] - center, scores[~is_left_out])
        predicted[is_left_out] = model.predict(features[is_left_out] - center)
    return predicted
