"""What the estimators share: shapes of trials, seeds, and what they start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from poyo_ssl.estimators.animal import NAME, Animal
from poyo_ssl.model.encoder import Encoder, EncoderConfig, starting_encoder

SAMPLING_RATE = 30.0
"""Hz; that of the Allen Brain Observatory and of most resonant microscopes."""
LARGEST_SEED = 2**31 - 1


class TrialEstimator(BaseEstimator):
    """An estimator of trials: arrays (n_trials, n_timesteps, n_units), or the same in flat rows."""

    sampling_rate: float
    window_shape: tuple[int, int] | None
    random_state: int | np.random.RandomState | None

    def __sklearn_tags__(self) -> Tags:
        """Trials may be arrays of three dimensions."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    @property
    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(LARGEST_SEED))

    def _read_first(self, X: Any, **answers: Any) -> tuple[np.ndarray, Any]:
        """Trials to learn from, (n_trials, n_timesteps, n_units), and what was given as ``y``."""
        flat, shape = self._flatten(X)
        is_in_time = flat is not X  # three dimensions, which have been flattened
        if is_in_time and "y" in answers and np.size(answers["y"]) != len(flat):
            raise ValueError(
                f"X is read as {len(flat)} trials of (n_timesteps, n_units) = {shape}, but y has "
                f"{np.size(answers['y'])} answers. Give X as trials x timesteps x units."
            )
        read = validate_data(self, flat, **answers, dtype=np.float32, ensure_min_samples=2)
        flat, y = read if answers else (read, None)
        num_timesteps, num_units = shape or (1, self.n_features_in_)
        if num_timesteps * num_units != self.n_features_in_:
            raise ValueError(
                f"window_shape={shape} (n_timesteps, n_units) makes {num_timesteps * num_units} "
                f"features a trial, but X has {self.n_features_in_} features."
            )
        self.window_shape_ = num_timesteps, num_units
        return flat.reshape(-1, num_timesteps, num_units), y

    def _read(self, X: Any) -> np.ndarray:
        """Trials to answer, of the shape that was learned from."""
        check_is_fitted(self)
        flat, shape = self._flatten(X)
        flat = validate_data(self, flat, dtype=np.float32, reset=False)
        if shape is not None and tuple(shape) != self.window_shape_:
            raise ValueError(
                f"X has trials of shape {shape} (n_timesteps, n_units), but "
                f"{type(self).__name__} was fitted on trials of shape {self.window_shape_}."
            )
        trials: np.ndarray = flat.reshape(-1, *self.window_shape_)
        return trials

    def _flatten(self, X: Any) -> tuple[Any, tuple[int, int] | None]:
        """Trials as rows, and their shape where it is known."""
        shape = self.window_shape
        if shape is not None and (len(shape) != 2 or min(shape) < 1):
            raise ValueError(
                f"The 'window_shape' parameter of {type(self).__name__} must be (n_timesteps, "
                f"n_units). Got {shape!r} instead."
            )
        array = np.asarray(X)
        if array.ndim != 3:
            return X, shape
        num_trials, num_timesteps, num_units = array.shape
        if shape is not None and tuple(shape) != (num_timesteps, num_units):
            raise ValueError(
                f"X has trials of shape {(num_timesteps, num_units)} (n_timesteps, n_units), but "
                f"window_shape={shape}. Leave window_shape out for arrays of three dimensions."
            )
        return array.reshape(num_trials, num_timesteps * num_units), (num_timesteps, num_units)

    def _prepare(
        self, start: Encoder | EncoderConfig | None
    ) -> tuple[Encoder | EncoderConfig, Animal]:
        """What to start from, and the trials as it reads them: whole patches."""
        num_timesteps, num_units = self.window_shape_
        if not 0 < self.sampling_rate < np.inf:
            raise ValueError(
                f"The 'sampling_rate' parameter of {type(self).__name__} must be a positive number "
                f"of Hz. Got {self.sampling_rate!r} instead."
            )
        start = starting_encoder(start)
        if isinstance(start, Encoder):
            patch = start.patch_timesteps
        else:
            start = _fit_patches(start, num_timesteps, self.sampling_rate)
            patch = start.patch_timesteps(self.sampling_rate)
        if patch > num_timesteps:
            raise ValueError(
                f"X has n_timesteps={num_timesteps} a trial, but the encoder reads patches of "
                f"{patch}. Give longer trials, or an encoder of shorter patches."
            )
        animal = Animal(
            num_timesteps=num_timesteps // patch * patch,
            num_units=num_units,
            sampling_rate=self.sampling_rate,
        )
        return start, animal


def _fit_patches(config: EncoderConfig, num_timesteps: int, sampling_rate: float) -> EncoderConfig:
    """Patches about as long as the config says that leave least of a trial unread."""
    usual = config.patch_timesteps(sampling_rate)
    patch = num_timesteps // max(1, round(num_timesteps / usual))
    return config if patch == usual else replace(config, patch_length=patch / sampling_rate)


def require_units(encoder: Encoder, num_units: int) -> None:
    """Refuses an encoder of the trials of another animal; one of recordings learns new units."""
    num_known = sum(unit.startswith(f"{NAME}/") for unit in encoder.unit_embedding.vocab)
    if num_known not in (0, num_units):
        raise ValueError(
            f"X has {num_units} units, but encoder was fitted on trials of {num_known}. Fit it on "
            "the same units, or bring it to these with adapt."
        )
