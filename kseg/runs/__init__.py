"""A run: its experiment, its folder, its checkpoints."""
