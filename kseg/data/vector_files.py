"""Loads fiona (extra `geo`), which reads and writes vector files."""

import sys
from types import ModuleType

from kseg.errors import missing_extra

# TensorFlow brings an SQLite without R-trees, the spatial indexes of GeoPackages. If it is loaded
# first, fiona uses that one.
_without_rtrees = False


def load_fiona(what: str) -> ModuleType:
    """Returns the module fiona.

    Args:
        what: The flag or file that needs it, for the message.

    Raises:
        UserError: fiona is not installed.
    """
    global _without_rtrees
    if "fiona" not in sys.modules:
        _without_rtrees = "tensorflow" in sys.modules
    try:
        import fiona
    except ImportError as error:
        raise missing_extra("geo", what, error) from error
    return fiona


def has_rtrees() -> bool:
    """Returns whether GeoPackages can be read and written with spatial indexes."""
    return not _without_rtrees
