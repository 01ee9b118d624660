"""Forms of a trained network for other programs; `kseg.export` is the program."""
