"""The engine all training shares."""
