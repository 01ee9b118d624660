"""The plot of the mIoU curves."""

import pytest
from PIL import Image

from kseg.errors import UserError
from kseg.visualization import curves


def test_each_run_with_validations_has_a_line(tmp_path):
    path = tmp_path / "curves.png"
    curves.draw({"first": [(30, 0.25), (60, 0.5)], "second": [(30, 0.3)], "third": []}, path)
    with Image.open(path) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
    # White, black, and the two colours of two lines.
    assert len(colours) > 4


def test_runs_without_validations_are_refused(tmp_path):
    with pytest.raises(UserError, match="--figure"):
        curves.draw({"third": []}, tmp_path / "curves.png")


def test_a_band_is_as_high_as_the_deviations(tmp_path):
    """The coloured pixels of one curve with a band, against those of the same one without."""
    coloured = []
    for spread in (0.0, 0.1):
        path = tmp_path / f"{spread}.png"
        curves.draw_bands({"one": ([1, 2, 3], [0.2, 0.4, 0.5], [spread] * 3)}, path)
        with Image.open(path) as picture:
            counts = picture.convert("RGB").getcolors(1 << 24)
        coloured.append(sum(n for n, colour in counts if max(colour) - min(colour) > 10))
    assert coloured[1] > 3 * coloured[0] > 0
