"""The context modules by the name that a flag takes."""

from kseg.layers import ASPP, KSAC

CONTEXTS = {"aspp": ASPP, "ksac": KSAC}
