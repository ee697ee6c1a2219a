"""One module for each format of file: how it is recognised and how it is read."""
