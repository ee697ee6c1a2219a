"""Cell-pattern-aware self-supervised pretraining for two-photon calcium imaging."""
