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

import lazy_loader

# The verbs are listed in __init__.pyi and imported when they are first used: torch alone takes
# seconds, and not every command needs it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
