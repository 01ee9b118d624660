"""Runs a program with the backbone "tiny", which only the tests know.

python -m tests.models.tiny_program kseg.train --backbone=tiny ...
"""

import runpy
import sys

from tests.models.networks import registered_backbone

if __name__ == "__main__":
    del sys.argv[0]
    with registered_backbone(16):
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
