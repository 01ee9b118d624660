"""Predicts images with a trained run."""

from kseg.predict.predict_images import predict

__all__ = ["predict"]
