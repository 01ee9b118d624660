"""Image files and palette PNGs."""

import numpy as np
import pytest
from PIL import Image

from kseg.visualization import image_files, label_maps

COLOURS = ((0, 0, 0), (200, 10, 30), (20, 220, 40))
LABELS = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)


def test_a_palette_png_keeps_the_ids_and_shows_the_colours(tmp_path):
    path = tmp_path / "masks" / "mask.png"
    image_files.save_palette_png(path, LABELS, COLOURS)
    with Image.open(path) as saved:
        assert saved.mode == "P"
        np.testing.assert_array_equal(np.asarray(saved), LABELS)
        rgb = np.asarray(saved.convert("RGB"))
    np.testing.assert_array_equal(rgb, label_maps.colourise(LABELS, COLOURS))


def test_the_suffix_and_the_options_of_pillow_determine_the_format(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    sizes = []
    for quality in (10, 95):
        path = tmp_path / f"{quality}.jpg"
        image_files.save_picture(path, noise, quality=quality)
        assert Image.open(path).format == "JPEG"
        sizes.append(path.stat().st_size)
    assert sizes[0] < sizes[1]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    image_files.save_palette_png(path, LABELS, COLOURS)
    before = path.read_bytes()

    def broken(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        image_files.save_palette_png(path, LABELS[::-1], COLOURS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mask.png"]


def test_labels_of_a_wrong_type_are_named(tmp_path):
    with pytest.raises(ValueError, match="labels"):
        image_files.save_palette_png(tmp_path / "mask.png", LABELS.astype(int), COLOURS)
