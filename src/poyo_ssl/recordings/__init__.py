"""What was recorded: sessions, their sources, splits and windows."""
