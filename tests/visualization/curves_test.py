"""The picture of the curves."""

import pytest
from PIL import Image

from kseg.errors import UserError
from kseg.visualization import curves


def test_the_curves_are_drawn(tmp_path):
    path = tmp_path / "curves.png"
    curves.draw({"one": [(30, 0.25), (60, 0.5)], "two": [(30, 0.3)], "none": []}, path)
    with Image.open(path) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
    # White and black, and two lines of two colours.
    assert len(colours) > 4
    with pytest.raises(UserError, match="`--figure`: none of the runs has a val mIoU"):
        curves.draw({"none": []}, path)
