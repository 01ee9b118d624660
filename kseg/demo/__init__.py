"""A demo from drawn images to an exported network."""

from kseg.demo.steps import demo

__all__ = ["demo"]
