"""Logs of the programs that show stimuli, and the tables of presentations made of them."""
