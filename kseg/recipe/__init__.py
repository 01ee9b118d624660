"""Losses, metrics, learning-rate schedules and the optimizer of the papers."""
