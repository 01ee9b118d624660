"""Visualization of label maps, predictions, curves, confusion matrices and feature maps."""
