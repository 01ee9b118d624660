"""Trains the network of one experiment."""

from kseg.train.trainer import train

__all__ = ["train"]
