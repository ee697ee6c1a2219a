"""What the units of a recording do together: the leading components of their activity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.principal_modes import PrincipalModes
from poyo_ssl.windows.training_batches import WindowBatch, WindowSource


@dataclass(frozen=True, eq=False)
class ActivityModes:
    """Mean and leading principal components, over units, of every recording's activity.

    The first mode is mostly the gain that all units share: arousal and running move it, and it
    says little about the stimulus.
    """

    mean: Mapping[str, Tensor]
    """Recording id to the mean activity of every row of the unit embedding, (num_rows,)."""
    loadings: Mapping[str, Tensor]
    """Recording id to the components, (num_rows, num_modes); zero for units of others."""

    @staticmethod
    def measure(sources: list[WindowSource], num_modes: int) -> ActivityModes:
        """Measures the modes of the windows' mean activity.

        Args:
            sources: Training windows, one source per recording; every half window one is taken.
            num_modes: Components to keep.

        Raises:
            RecordingError: If a recording has no more units than modes.
        """
        few = [s.activity for s in sources if len(s.activity.unit_ids) <= num_modes]
        if few:
            found = ", ".join(f"'{a.recording_id}' has {len(a.unit_ids)}" for a in few)
            raise RecordingError(
                f"remove_modes: {num_modes} leaves nothing of recordings with so few units "
                f"({found}). Remove fewer modes, or choose more units."
            )
        mean, loadings = {}, {}
        for source in sources:
            modes = PrincipalModes.measure(source.half_apart().binned(1))
            name, rows = source.activity.recording_id, source.unit_index
            mean[name] = torch.zeros(int(rows.max()) + 1)
            mean[name][rows] = torch.from_numpy(modes.mean).float()
            loadings[name] = torch.zeros(len(mean[name]), num_modes)
            loadings[name][rows] = torch.from_numpy(modes.loadings[:, :num_modes]).float()
        return ActivityModes(mean, loadings)

    def remove(self, group: WindowBatch) -> Tensor:
        """The windows' activity without the modes, (B, timesteps, U).

        Where units are left out of a step, the modes' activity is that which fits the units that
        are there best.
        """
        device, units = group.activity.device, group.unit_index
        mean = self.mean[group.recording_id].to(device)[units]
        basis = torch.linalg.qr(self.loadings[group.recording_id].to(device)[units]).Q
        return group.activity - ((group.activity - mean) @ basis) @ basis.T
