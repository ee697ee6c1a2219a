"""Questions asked of encoders and activity, beside the comparisons."""
