"""What was found out, in the forms of other tools: NWB, suite2p, xarray and pynapple."""
