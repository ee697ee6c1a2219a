"""The networks alone: no training."""
