"""The Allen Brain Observatory on DANDI: catalogue, resumable download, streaming."""
