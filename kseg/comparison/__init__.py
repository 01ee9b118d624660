"""Runs side by side; `kseg.compare` is the program."""
