"""Masks: which ids a file gives, and which files are rejected."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data import checked_images, masks
from kseg.data.checked_images import BadInput
from kseg.data.datasets import VOC, LabelSet
from kseg.data.masks import Remap
from tests.tfrecords_tools import folders

ROADS = LabelSet(("ground", "road"), ((0, 0, 0), (255, 255, 255)))


def tiff(width, height, depth, rows):
    """Returns a grey TIFF file in which 0 is black."""
    values = [width, height, depth, 1, 1, 122, 1, height, len(rows)]
    tags = (256, 257, 258, 259, 262, 273, 277, 278, 279)
    entries = [
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in zip(tags, values, strict=True)
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + rows


def save(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def test_palette_mask_gives_its_indices_and_not_its_luminance(tmp_path):
    ids = np.random.default_rng(0).choice(np.uint8([*range(21), 255]), (9, 12))
    path = folders.mask(tmp_path / "a.png", ids)
    np.testing.assert_array_equal(masks.read_index_mask(path, VOC), ids)
    np.testing.assert_array_equal(masks.read_index_or_colour_mask(path, VOC), ids)


def test_grey_mask_gives_its_values(tmp_path):
    ids = np.arange(20, dtype=np.uint8).reshape(4, 5)
    path = save(tmp_path / "a.png", ids)
    np.testing.assert_array_equal(masks.read_index_mask(path, VOC), ids)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_mask_of_few_bits_gives_the_stored_ids(tmp_path, depth, suffix):
    """Pillow and TensorFlow stretch them: with 4 bits, 1 becomes 17."""
    ids = np.random.default_rng(0).integers(0, min(2**depth, 21), (6, 7), np.uint8)
    bits = np.unpackbits(ids[..., np.newaxis], axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(6, -1), axis=1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        path.write_bytes(folders.png(7, 6, depth, 0, np.insert(rows, 0, 0, axis=1).tobytes()))
    else:
        path.write_bytes(tiff(7, 6, depth, rows.tobytes()))
    np.testing.assert_array_equal(masks.read_index_mask(path, VOC), ids)
    same = Remap({value: value for value in range(21)})
    np.testing.assert_array_equal(same.read_mask(path, VOC), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_mask_of_few_bits_gives_its_indices(tmp_path, bits):
    ids = np.random.default_rng(0).integers(0, 2**bits, (9, 12), np.uint8)
    path = folders.mask(tmp_path / "a.png", ids)
    Image.open(path).save(path, bits=bits)
    assert path.read_bytes()[24] == bits
    np.testing.assert_array_equal(masks.read_index_mask(path, VOC), ids)


def test_rgb_mask_is_rejected_where_ids_are_expected(tmp_path):
    path = folders.mask(tmp_path / "a.png", 15)
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(BadInput, match=r"a\.png: .*RGB.*build_folder.*--remap"):
        masks.read_index_mask(path, VOC)


def test_mask_with_a_renumbered_palette_is_rejected_if_colours_are_known(tmp_path):
    path = folders.mask(tmp_path / "a.png", 1)
    renumbered = Image.open(path)
    renumbered.putpalette([0, 0, 0, *VOC.colours[15]])
    renumbered.save(path)
    for read in (masks.read_index_mask, masks.read_index_or_colour_mask):
        with pytest.raises(BadInput, match=r"a\.png: .*'aeroplane'.*'person'"):
            read(path, VOC)
    assert (masks.read_index_mask(path, VOC, check_palette=False) == 1).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_mask_is_rejected(tmp_path, name):
    Image.new("L", (8, 8), 1).save(tmp_path / name)
    with pytest.raises(BadInput, match=name):
        masks.read_index_mask(tmp_path / name, VOC)


def test_mask_rotated_by_exif_is_rejected(tmp_path):
    exif = Image.Exif()
    for orientation, name in ((0, "unknown.png"), (1, "upright.png"), (3, "rotated.png")):
        exif[0x0112] = orientation
        Image.open(folders.mask(tmp_path / "a.png", 3)).save(tmp_path / name, exif=exif)
        assert Image.open(tmp_path / name).getexif()[0x0112] == orientation
    assert (masks.read_index_mask(tmp_path / "unknown.png", VOC) == 3).all()
    assert (masks.read_index_mask(tmp_path / "upright.png", VOC) == 3).all()
    with pytest.raises(BadInput, match=r"rotated\.png: .*EXIF"):
        masks.read_index_mask(tmp_path / "rotated.png", VOC)


def test_ids_that_are_not_classes_are_named():
    ids = np.uint8([[0, 20, 255], [21, 128, 0]])
    with pytest.raises(BadInput, match=r"m\.png: .*21, 128"):
        masks.check_ids("m.png", ids, VOC)
    masks.check_ids("m.png", ids[:1], VOC)


def test_ids_are_counted(monkeypatch):
    ids = np.random.default_rng(0).integers(0, 256, (13, 17), np.uint8)
    expected = [(ids == label).sum() for label in range(256)]
    for band in (7, 1 << 20):
        monkeypatch.setattr(masks, "_VALUES_PER_BAND", band)
        np.testing.assert_array_equal(masks.count_ids(ids), expected)


def test_rgb_mask_is_read_by_the_colours_of_the_classes(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1], pixels[1, 2] = 255, (9, 8, 7)
    path = save(tmp_path / "a.png", pixels)
    ids = masks.read_index_or_colour_mask(path, ROADS, ignore_colour=(9, 8, 7))
    np.testing.assert_array_equal(ids, [[0, 1, 0], [0, 0, 255]])
    with pytest.raises(BadInput, match=r"a\.png: .*\b9 8 7$"):
        masks.read_index_or_colour_mask(path, ROADS)


def test_colours_are_read_in_bands_of_rows_and_counted_over_all_of_them(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).choice(np.uint8([0, 255]), (7, 3, 1)).repeat(3, axis=2)
    path = save(tmp_path / "a.png", pixels)
    for band in (1, 6, 7, 100):
        monkeypatch.setattr(checked_images, "_PIXELS_PER_BAND", band)
        ids = masks.read_index_or_colour_mask(path, ROADS)
        np.testing.assert_array_equal(ids, pixels[..., 0] // 255)
    pixels[:, 1] = np.arange(1, 8)[:, np.newaxis]
    pixels[6, 1] = 1
    monkeypatch.setattr(checked_images, "_PIXELS_PER_BAND", 6)
    with pytest.raises(BadInput, match=r"b\.png: .* 6 .* 5 5 5 and 1 more"):
        masks.read_index_or_colour_mask(save(tmp_path / "b.png", pixels), ROADS)
    alpha = np.uint8([[255] * 3] * 6 + [[255, 254, 255]])
    path = save(tmp_path / "c.png", np.dstack([pixels, alpha]))
    with pytest.raises(BadInput, match=r"c\.png: .*transparent"):
        masks.read_index_or_colour_mask(path, ROADS)


def test_table_maps_raw_ids_and_colours(tmp_path):
    remap = Remap({7: 1, 9: 255}, {(1, 2, 3): 1})
    values = save(tmp_path / "values.png", [[7, 9], [9, 7]])
    np.testing.assert_array_equal(remap.read_mask(values, ROADS), [[1, 255], [255, 1]])
    colours = save(tmp_path / "colours.png", np.full((2, 2, 3), (1, 2, 3)))
    np.testing.assert_array_equal(remap.read_mask(colours, ROADS), [[1, 1], [1, 1]])
    unknown_values = save(tmp_path / "unknown_values.png", [[7, 8]])
    unknown_colours = save(tmp_path / "unknown_colours.png", [[[1, 2, 3], [1, 2, 4]]])
    for path, received in ((unknown_values, "8"), (unknown_colours, "1 2 4")):
        with pytest.raises(BadInput, match=rf"{path.name}: .*\b{received}$"):
            remap.read_mask(path, ROADS)
        ids = Remap(remap.ids, remap.colours, other=0).read_mask(path, ROADS)
        np.testing.assert_array_equal(ids, [[1, 0]])
    with pytest.raises(BadInput, match=r"colours\.png: .*RGB"):
        Remap({7: 1}).read_mask(colours, ROADS)


def test_masks_need_no_tensorflow():
    code = "import sys, kseg.data.masks; sys.exit('tensorflow' in sys.modules)"
    environment = os.environ | {"KSEG_WITHOUT_KERAS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
