"""Traces that are called ΔF/F and look like raw fluorescence."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import numpy as np

from poyo_ssl.recordings.recording import Recording

logger = logging.getLogger(__name__)

_LARGEST_MEDIAN = 5.0
"""ΔF/F lies around zero; at half of its time a cell is not at six times its baseline."""
_LOOKED_AT = 1000
"""Timesteps that are looked at, spread over the recording: traces may lie on a slow disk."""


def warn_of_raw_fluorescence(recording: Recording) -> Recording:
    """The recording, with a warning where most of its units lie far above zero, as light does.

    Such traces are used as they are. Events, which are zero most of the time, and traces in units
    of their standard deviation are no light.
    """
    if not recording.num_units:
        return recording
    step = max(1, recording.num_timesteps // _LOOKED_AT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of units without any sample
        low, median = np.nanpercentile(recording.df_over_f[::step], (5, 50), axis=0)
    is_light = (low > 0) & (median > _LARGEST_MEDIAN)
    if is_light.mean() <= 0.5:
        return recording
    text = (
        f"Recording '{recording.recording_id}': its traces look like raw fluorescence, not ΔF/F: "
        f"{is_light.sum()} of {recording.num_units} units lie far above zero (median "
        f"{np.median(median[is_light]):.4g}). They are used as they are. Give (F - F0) / F0; it is "
        "computed for you where files say that they hold fluorescence: F.npy of suite2p, or NWB "
        "with nwb.activity of the source set to fluorescence."
    )
    logger.warning("%s", text)
    return replace(recording, warnings=tuple(dict.fromkeys([*recording.warnings, text])))
