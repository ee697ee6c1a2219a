"""scikit-learn estimators of trials: arrays in, labels, numbers or latents out."""
