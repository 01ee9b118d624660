"""The version of kseg."""

__version__ = "0.1.0"
