"""A pretrained encoder meets new recordings: units, fit and score in one call."""
