"""Import of the official DeepLab checkpoints."""

from kseg.import_checkpoint.importer import import_checkpoint

__all__ = ["import_checkpoint"]
