"""Measures speed and memory of layers, networks, the input, training and exported forms."""
