"""Cell-pattern-aware self-supervised pretraining for two-photon calcium imaging.

The whole method is six verbs, in the order of the data::

    recordings = load_recordings(["session.nwb"])
    divided = divide(recordings, [find_task("direction")], SplitConfig())
    partition = partition_by_predictability(recordings, {...: d.training for d in divided}, ...)
    encoder, _ = pretrain(Population(divided, predictable_units), EncoderConfig(), ...)
    decoder, _ = finetune(Population(divided, unpredictable_units), task, encoder, ...)
    scores = evaluate(decoder, recordings[0], divided[0].splits["direction"]).scores

``run`` does all of it, for several seeds and beside reference decoders, and writes the report.
"""

from poyo_ssl.decoding import load_decoder
from poyo_ssl.evaluation import evaluate
from poyo_ssl.experiment import RunConfig
from poyo_ssl.finetuning import FinetuningConfig, finetune
from poyo_ssl.model.checkpoints import load_encoder, save_encoder
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.population import Population, divide
from poyo_ssl.predictability import partition_by_predictability
from poyo_ssl.pretraining import PretrainingConfig, pretrain
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.simulator import SimulatorConfig, simulate_observatory
from poyo_ssl.recordings.splits import SplitConfig
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.recordings.tasks import find_task
from poyo_ssl.report import write_report
from poyo_ssl.run import run
from poyo_ssl.thresholds import PredictabilityConfig

__all__ = [
    "EncoderConfig",
    "FinetuningConfig",
    "Population",
    "PredictabilityConfig",
    "PretrainingConfig",
    "Recording",
    "RecordingError",
    "RunConfig",
    "SimulatorConfig",
    "SplitConfig",
    "divide",
    "evaluate",
    "find_task",
    "finetune",
    "load_decoder",
    "load_encoder",
    "load_recordings",
    "partition_by_predictability",
    "pretrain",
    "run",
    "save_encoder",
    "save_recording",
    "simulate_observatory",
    "write_report",
]
