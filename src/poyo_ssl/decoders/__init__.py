"""Fitted decoders: the network's and the reference decoders it is read beside."""
