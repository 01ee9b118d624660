"""The figures of the papers, drawn from runs: `python -m kseg.compare` puts them together."""
