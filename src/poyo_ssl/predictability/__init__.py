"""Which units are predictable: statistics of their activity, thresholds, and how firm both are."""
