"""A demonstration from images to a served network."""

from kseg.demo.steps import demo

__all__ = ["demo"]
