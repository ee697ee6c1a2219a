"""Decoding while the microscope runs: one imaging sample in, one answer out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.activity import Activity, normalise

logger = logging.getLogger(__name__)


class StreamingDecoder:
    """Answers after every imaging sample from the window that ends with it.

    The answer is what :meth:`FittedDecoder.predict` gives for that window of a whole recording.
    Only twice as much activity as an answer takes into account is kept.

    Args:
        decoder: A fitted decoder of any kind.
        unit_ids: Names of the units in the order in which their samples will come; those that the
            decoder does not know are ignored.
        recording_id: The recording that the decoder was fitted on and that goes on now; its mean
            and standard deviation normalise the samples. None, or any other: the average over the
            fitted recordings that know the cell (:meth:`UnitScale.table_for`).
        sampling_rate: Rate at which samples will come, Hz. None: it is not checked, and samples
            must come at the rate that the decoder was fitted at.

    Raises:
        RecordingError: If a unit is named twice, the decoder knows none of them, or it was fitted
            at another rate.
    """

    def __init__(
        self,
        decoder: FittedDecoder,
        unit_ids: Sequence[str],
        recording_id: str | None = None,
        sampling_rate: float | None = None,
    ) -> None:
        self.decoder = decoder
        self._num_incoming = len(unit_ids)
        self._recording_id = recording_id or "stream"
        column = {str(unit_id): i for i, unit_id in enumerate(unit_ids)}
        if not 0 < len(column) == self._num_incoming:
            raise RecordingError(
                f"unit_ids must name every incoming unit once: {self._num_incoming} names were "
                f"given, of which {len(column)} differ. Name the units in the order in which "
                "their samples come."
            )
        question = decoder.question
        if sampling_rate is not None:
            question.require_rate(sampling_rate, self._recording_id)
        self.unit_ids = question.known_among(np.array(list(column)), self._recording_id)
        self._columns = np.array([column[unit_id] for unit_id in self.unit_ids])
        self._mean, self._sd = question.scale.statistics(self._recording_id, self.unit_ids)
        self._rest = question.scale.rest(self._recording_id, self.unit_ids)
        self._num_kept = decoder.context + question.num_timesteps
        self._samples = np.empty((2 * self._num_kept, len(self.unit_ids)), dtype=np.float32)
        self.reset()
        logger.info(
            "'%s' uses %d of %d incoming units; samples must come at %.2f Hz.",
            question.arm,
            len(self.unit_ids),
            self._num_incoming,
            question.sampling_rate,
        )

    def reset(self) -> None:
        """Forgets all samples. Call it after a gap in imaging, which no window may cross."""
        self._stop = 0

    def push(self, df_over_f: np.ndarray) -> np.ndarray | None:
        """Takes the next imaging sample of all units.

        Args:
            df_over_f: ΔF/F, shape (num_units,), dimensionless, in the order of ``unit_ids``. A
                unit that is not a number counts as its mean.

        Returns:
            Label tasks: scores, (num_classes,). Value tasks: the value, (). Frame tasks: the movie
            frame, (). Image tasks: a picture, (64, 128). None until the first window is full.

        Raises:
            ValueError: If there is not one number for every unit.
        """
        sample = np.asarray(df_over_f, dtype=np.float32)
        if sample.shape != (self._num_incoming,):
            raise ValueError(
                f"An imaging sample must have shape ({self._num_incoming},), one number for every "
                f"unit that was named at the start, got {sample.shape}. Push one sample at a time."
            )
        self._append(normalise(sample[self._columns], self._mean, self._sd))
        first = self._stop - self.decoder.question.num_timesteps
        if first < 0:
            return None
        begin = max(0, first - self.decoder.context)
        activity = Activity(
            recording_id=self._recording_id,
            values=torch.from_numpy(self._samples[begin : self._stop]),
            unit_ids=self.unit_ids,
            rest=self._rest,
        )
        return np.asarray(self.decoder.answer(activity, np.array([first - begin]))[0])

    def _append(self, sample: np.ndarray) -> None:
        """Adds a row; where the buffer is full, what the next window needs moves to the front."""
        if self._stop == len(self._samples):
            kept = self._num_kept - 1
            self._samples[:kept] = self._samples[len(self._samples) - kept :]
            self._stop = kept
        self._samples[self._stop] = sample
        self._stop += 1
