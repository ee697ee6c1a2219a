"""Whether the units answer to the stimuli at the times that a recording lists."""
