"""Events, such as spikes inferred from calcium, made traces that decay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.signal import lfilter

from poyo_ssl.recordings.recording import Recording, require_recording


class EventKernel:
    """A causal exponential kernel: what an event adds decays, and nothing comes before it.

    Args:
        decay: Seconds in which an event decays to 1/e.
        sampling_rate: Imaging samples per second, Hz.

    Raises:
        ValueError: If either is not positive.
    """

    def __init__(self, decay: float, sampling_rate: float) -> None:
        if not (decay > 0 and sampling_rate > 0):
            raise ValueError(
                f"decay (s) and sampling_rate (Hz) must be positive, got {decay} and "
                f"{sampling_rate}. To leave events as they are, use no kernel."
            )
        self._factor = float(np.exp(-1 / (decay * sampling_rate)))
        self.reset()

    def reset(self) -> None:
        """Forgets all events. Call it after a gap in imaging."""
        self._state = np.zeros(())

    def push(self, events: np.ndarray) -> np.ndarray:
        """Takes the next imaging sample.

        Args:
            events: One number for every unit, (num_units,); not a number counts as no event.

        Returns:
            The sum of all events so far, each decayed, (num_units,), float32.
        """
        self._state = self._factor * self._state + np.nan_to_num(events).astype(np.float64)
        return self._state.astype(np.float32)

    def convolve(self, events: np.ndarray) -> np.ndarray:
        """The same for samples without a gap, from the first on, (num_timesteps, num_units)."""
        traces = lfilter([1.0], [1.0, -self._factor], np.nan_to_num(events), axis=0)
        return traces.astype(np.float32)


def convolve_events(recording: Recording, decay: float) -> Recording:
    """The recording with events that decay; decoders then see each for a while, not for a sample.

    A decoder that is fitted on it expects the same of what it is asked about: new recordings are
    convolved, too, and samples of a stream go through an :class:`EventKernel` first.

    Args:
        recording: Of events, in place of ΔF/F. All of it comes into memory.
        decay: Seconds in which an event decays to 1/e.

    Raises:
        ValueError: If ``decay`` is not positive.
    """
    require_recording(recording)
    kernel = EventKernel(decay, recording.sampling_rate)
    traces = [
        kernel.convolve(recording.df_over_f[first:stop]) for first, stop in recording.segments
    ]
    return replace(recording, df_over_f=np.concatenate(traces))
