"""What a run keeps of single units, for its report."""

from __future__ import annotations

from poyo_ssl.comparison.experiment import Experiment, PlannedFit
from poyo_ssl.comparison.run_plan import RunPlan
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.file_names import NEURONS
from poyo_ssl.neurons.describe import describe_neurons
from poyo_ssl.neurons.storage import save_neurons


def write_neurons(experiment: Experiment, run_plan: RunPlan) -> None:
    """Describes units by what they did in training time, and by the first decoder of every arm."""
    decoders = [
        load_decoder(experiment.directory / fit.name) for fit in _described(experiment, run_plan)
    ]
    described = describe_neurons(experiment.divided, experiment.partition, decoders)
    save_neurons(described, experiment.directory / NEURONS)


def _described(experiment: Experiment, run_plan: RunPlan) -> list[PlannedFit]:
    """The fits of the first seed with the most labels, of all units where there are such."""
    groups = experiment.config.units
    units = "all" if "all" in groups else groups[0]
    return [
        fit
        for fit in run_plan.fits
        if (fit.seed, fit.units, fit.labels) == (0, units, run_plan.most_labels(fit.task))
    ]
