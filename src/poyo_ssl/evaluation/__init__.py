"""Predict, then score: every test window, beside chance."""
