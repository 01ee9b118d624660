"""The largest images that Pillow allows fit into the memory that `worker` documents."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SIDE = 9400  # 88.4 million pixels; Pillow's limit is 89.5.
# Not `ru_maxrss`, which a process inherits from its parent.
MEASURE = """
import re, sys
from pathlib import Path
from kseg.data.masks import MaskRule
from kseg.data.datasets import ROADS
from tfrecords_tools import inputs

sample = inputs.Sample("a", *map(Path, sys.argv[1:]))
prepared, problems = inputs.prepare(sample, ROADS, MaskRule.of_colours(ROADS))
assert not problems, problems
assert "tensorflow" not in sys.modules
status = Path("/proc/self/status").read_text()
print(prepared.pixels[1], re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("image", "mode"), [("a.jpg", "RGB"), ("a.png", "RGBA")])
def test_large_image_with_a_mask_in_colours_needs_less_than_a_gib(tmp_path, image, mode):
    size, white = (SIDE, SIDE), (255,) * len(mode)
    Image.new(mode, size, (1, 2, 3, 255)[: len(mode)]).save(tmp_path / image)
    Image.new(mode, size, white).save(tmp_path / "mask.png")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / image, tmp_path / "mask.png"],
        env=os.environ | {"KSEG_WITHOUT_KERAS": "1"},  # As the workers have it.
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    roads, peak = map(int, done.stdout.split())
    assert roads == SIDE**2
    assert peak < 2**20
