"""Units of all animals in one space, by what they do to a stimulus that all of them saw."""
