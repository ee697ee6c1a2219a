"""What pretraining minimises: one class for each objective, all with one interface."""

from poyo_ssl.pretraining.objectives.label_prediction import LabelPrediction
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivity
from poyo_ssl.pretraining.objectives.masked_latents import MaskedLatents
from poyo_ssl.pretraining.objectives.modes import Modes
from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.pretraining.objectives.split_units import SplitUnits

OBJECTIVES: dict[str, type[Objective]] = {
    "masked_activity": MaskedActivity,
    "masked_latents": MaskedLatents,
    "split_units": SplitUnits,
    "labels": LabelPrediction,
    "modes": Modes,
}
"""Name in ``PretrainingConfig.objective`` to class; options of its own are a field of that name."""
