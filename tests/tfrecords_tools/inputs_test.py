"""Which images become records, and which files are rejected."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data import masks
from kseg.data.checked_images import BadInput
from kseg.data.datasets import VOC
from kseg.data.masks import MaskRule
from kseg.data.records import decode_image
from tests.tfrecords_tools import folders
from tfrecords_tools import inputs
from tfrecords_tools.inputs import Sample


@pytest.mark.parametrize(
    ("name", "mode", "image_format"),
    [("a.jpg", "RGB", "jpeg"), ("a.jpg", "L", "jpeg"), ("a.png", "L", "png")],
)
def test_common_images_keep_their_bytes(tmp_path, name, mode, image_format):
    path = folders.image(tmp_path / name, mode=mode)
    assert inputs.read_image(path) == (path.read_bytes(), image_format, 9, 12)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "CMYK"), ("a.png", "P"), ("a.png", "1"), ("a.png", "RGBA"), ("a.bmp", "RGB")]
    + [("a.tif", "RGB"), ("a.webp", "RGB")],
)
def test_other_images_become_rgb_pngs_of_the_same_pixels(tmp_path, name, mode):
    path = folders.image(tmp_path / name, mode=mode)
    contents, image_format, height, width = inputs.read_image(path)
    assert (image_format, height, width) == ("png", 9, 12)
    assert Image.open(io.BytesIO(contents)).mode == "RGB"
    np.testing.assert_array_equal(decode_image(contents), Image.open(path).convert("RGB"))


def test_image_rotated_by_exif_is_rejected(tmp_path):
    exif = Image.Exif()
    for orientation, name in ((0, "unknown.jpg"), (1, "upright.jpg"), (6, "rotated.jpg")):
        exif[0x0112] = orientation
        Image.open(folders.image(tmp_path / "a.jpg")).save(tmp_path / name, exif=exif)
        assert Image.open(tmp_path / name).getexif()[0x0112] == orientation
    assert inputs.read_image(tmp_path / "unknown.jpg")[1] == "jpeg"
    assert inputs.read_image(tmp_path / "upright.jpg")[1] == "jpeg"
    with pytest.raises(BadInput, match=r"rotated\.jpg: .*EXIF orientation 6"):
        inputs.read_image(tmp_path / "rotated.jpg")


def test_transparent_pixels_are_rejected(tmp_path):
    picture = Image.open(folders.image(tmp_path / "a.png", mode="RGBA"))
    picture.putpixel((3, 4), (1, 2, 3, 254))
    picture.save(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"a\.png: .*transparent"):
        inputs.read_image(tmp_path / "a.png")


@pytest.mark.parametrize("colour_type", [0, 2])
def test_sixteen_bits_per_channel_are_rejected(tmp_path, colour_type):
    row = b"\0" + bytes(2 * 2 * (3 if colour_type == 2 else 1))
    (tmp_path / "a.png").write_bytes(folders.png(2, 1, 16, colour_type, row))
    with pytest.raises(BadInput, match=r"a\.png: .*8 bits"):
        inputs.read_image(tmp_path / "a.png")


def test_sixteen_bits_per_channel_in_a_tiff_are_rejected(tmp_path):
    """Pillow reads such a file as 8 bits without a warning."""
    strip = bytes(6)
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, len(strip))]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    contents = header + struct.pack("<3H", 16, 16, 16) + strip
    (tmp_path / "a.tif").write_bytes(contents)
    assert (len(header), Image.open(tmp_path / "a.tif").mode) == (122, "RGB")
    for read in (inputs.read_image, lambda path: MaskRule.of_colours(VOC)(path, VOC)):
        with pytest.raises(BadInput, match=r"a\.tif: .*8 bits"):
            read(tmp_path / "a.tif")


def test_file_with_several_images_is_rejected(tmp_path):
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(BadInput, match=r"a\.tif: .*\b2 images"):
        inputs.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("side", [12000, 60000])
def test_decompression_bomb_is_rejected_by_its_header(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(folders.png(side, side))
    for read in (inputs.read_image, lambda path: masks.CLASS_IDS(path, VOC)):
        with pytest.raises(BadInput, match=r"a\.png: .*decompression bomb"):
            read(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("lost", [1, 3, 12, 13, 200])
def test_truncated_image_is_rejected(tmp_path, name, lost):
    path = folders.image(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(BadInput, match=name):
        inputs.read_image(path)


def test_flipped_bit_in_a_png_is_rejected(tmp_path):
    path = folders.image(tmp_path / "a.png")
    whole = path.read_bytes()
    for position in range(8, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"a\.png"):
            inputs.read_image(path)


def test_files_that_are_not_images_are_rejected_with_a_reproducible_reason(tmp_path):
    (tmp_path / "a.jpg").write_text("not found")
    (tmp_path / "b.jpg").write_bytes(b"")
    reasons = set()
    for _ in range(2):
        with pytest.raises(BadInput, match=r"a\.jpg: .*not an image") as caught:
            inputs.read_image(tmp_path / "a.jpg")
        reasons.add(str(caught.value))
    assert len(reasons) == 1
    with pytest.raises(BadInput, match=r"b\.jpg: .*empty"):
        inputs.read_image(tmp_path / "b.jpg")
    with pytest.raises(BadInput, match=r"c\.jpg: .*not found"):
        inputs.read_image(tmp_path / "c.jpg")


def test_prepared_label_has_one_channel_and_is_counted(tmp_path):
    ids = np.zeros((9, 12), np.uint8)
    ids[0], ids[1] = 20, 255
    sample = Sample("a", folders.image(tmp_path / "a.jpg"), folders.mask(tmp_path / "a.png", ids))
    prepared, problems = inputs.prepare(sample, VOC, masks.CLASS_IDS)
    assert problems == []
    stored = Image.open(io.BytesIO(prepared.example["label"]))
    assert stored.mode == "L"
    np.testing.assert_array_equal(stored, ids)
    assert {i: int(n) for i, n in enumerate(prepared.pixels) if n} == {0: 84, 20: 12, 255: 12}


def test_problems_of_image_and_mask_are_found_together(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    sample = Sample("a", tmp_path / "a.jpg", folders.mask(tmp_path / "a.png", 99))
    prepared, problems = inputs.prepare(sample, VOC, masks.CLASS_IDS)
    assert prepared is None
    image, mask = map(str, problems)
    assert "a.jpg" in image
    assert "a.png" in mask and "99" in mask


def test_mask_of_another_size_is_named_with_its_image(tmp_path):
    mask = folders.mask(tmp_path / "a.png", size=(5, 4))
    sample = Sample("a", folders.image(tmp_path / "a.jpg"), mask)
    _, (problem,) = inputs.prepare(sample, VOC, masks.CLASS_IDS)
    assert all(text in str(problem) for text in ("a.png", "a.jpg", "5x4", "12x9"))


def test_inputs_need_no_tensorflow():
    code = "import sys, tfrecords_tools.inputs; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
