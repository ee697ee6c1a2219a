"""Recordings divided for what is asked of them: tasks, parts, windows and batches."""
