"""Fitting of decoders."""
