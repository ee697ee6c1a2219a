"""Cell-pattern-aware self-supervised pretraining for two-photon calcium imaging.

The whole method is six lines, in the order of the data::

    recordings = load_recordings("session.nwb")
    divided = divide(recordings, "direction")
    units = partition_by_predictability(divided)
    encoder = pretrain(units.population(divided, "predictable"))
    decoder = finetune(units.population(divided, "unpredictable"), "direction", encoder)
    scores = evaluate(decoder, divided)

``run`` does all of it, for several seeds and beside reference decoders, and writes the report.
"""

import lazy_loader

# The verbs are listed in __init__.pyi and imported when they are first used: torch alone takes
# seconds, and not every command needs it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
