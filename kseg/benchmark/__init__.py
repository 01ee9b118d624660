"""Measures speed and memory: layers, networks, input, training, exported forms."""
