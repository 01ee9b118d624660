"""Masks: which ids a file gives, and which files are rejected."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data import checked_images, mask_palettes, masks
from kseg.data.checked_images import BadInput
from kseg.data.datasets import VOC, LabelSet
from kseg.data.masks import MaskRule
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


def test_palette_mask_of_ids_gives_its_indices_and_not_its_luminance(tmp_path):
    ids = np.random.default_rng(0).choice(np.uint8([*range(21), 255]), (9, 12))
    path = folders.mask(tmp_path / "a.png", ids)
    np.testing.assert_array_equal(masks.CLASS_IDS(path, VOC), ids)


def test_grey_mask_gives_its_values(tmp_path):
    ids = np.arange(20, dtype=np.uint8).reshape(4, 5)
    path = save(tmp_path / "a.png", ids)
    np.testing.assert_array_equal(masks.CLASS_IDS(path, VOC), ids)


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
    np.testing.assert_array_equal(masks.CLASS_IDS(path, VOC), ids)
    same = MaskRule(ids={value: value for value in range(21)})
    np.testing.assert_array_equal(same(path, VOC), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_mask_of_few_bits_gives_its_indices(tmp_path, bits):
    ids = np.random.default_rng(0).integers(0, 2**bits, (9, 12), np.uint8)
    path = folders.mask(tmp_path / "a.png", ids)
    Image.open(path).save(path, bits=bits)
    assert path.read_bytes()[24] == bits
    np.testing.assert_array_equal(masks.CLASS_IDS(path, VOC), ids)


def test_rgb_mask_with_colours_is_rejected_where_ids_are_expected(tmp_path):
    path = folders.mask(tmp_path / "a.png", 15)
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(BadInput, match=r"a\.png: .*RGB.*classes file.*--remap"):
        masks.CLASS_IDS(path, VOC)


def test_mask_with_a_renumbered_palette_is_rejected_if_the_palette_is_known(tmp_path):
    path = folders.mask(tmp_path / "a.png", 1)
    renumbered = Image.open(path)
    renumbered.putpalette([0, 0, 0, *VOC.colours[15]])
    renumbered.save(path)
    with pytest.raises(BadInput, match=r"a\.png: .*'aeroplane'.*'person'.*--masks_are"):
        MaskRule(palette=VOC)(path, VOC)
    assert (masks.CLASS_IDS(path, VOC) == 1).all()
    assert (MaskRule.of_colours(VOC)(path, VOC) == 15).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_mask_is_rejected(tmp_path, name):
    Image.new("L", (8, 8), 1).save(tmp_path / name)
    with pytest.raises(BadInput, match=name):
        masks.CLASS_IDS(tmp_path / name, VOC)


def test_mask_rotated_by_exif_is_rejected(tmp_path):
    exif = Image.Exif()
    for orientation, name in ((0, "unknown.png"), (1, "upright.png"), (3, "rotated.png")):
        exif[0x0112] = orientation
        Image.open(folders.mask(tmp_path / "a.png", 3)).save(tmp_path / name, exif=exif)
        assert Image.open(tmp_path / name).getexif()[0x0112] == orientation
    assert (masks.CLASS_IDS(tmp_path / "unknown.png", VOC) == 3).all()
    assert (masks.CLASS_IDS(tmp_path / "upright.png", VOC) == 3).all()
    Image.open(tmp_path / "a.png").save(tmp_path / "rotated.tif", exif=exif)
    for name in ("rotated.png", "rotated.tif"):
        with pytest.raises(BadInput, match=rf"{name}: .*EXIF"):
            masks.CLASS_IDS(tmp_path / name, VOC)


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


ROAD = np.repeat([[0, 1, 1]], 4, axis=0)
IN_COLOURS = np.uint8([[0, 0, 0], [255, 255, 255]])[ROAD]


def palette_mask(path, indices, palette):
    picture = Image.fromarray(np.uint8(indices)).convert("L")
    picture.putpalette(np.uint8(palette).ravel().tolist())
    picture.save(path)
    return path


def white_road(mode):
    """Returns a mask of ROAD that a person sees as black and white."""
    if mode == "P":
        picture = Image.fromarray(np.uint8(1 - ROAD)).convert("L")
        picture.putpalette([255, 255, 255, 0, 0, 0])
        return picture
    return Image.fromarray(IN_COLOURS).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_mask_of_colours_is_read_by_what_a_person_sees_whatever_its_mode(tmp_path, mode, suffix):
    path = tmp_path / f"a.{suffix}"
    white_road(mode).save(path)
    np.testing.assert_array_equal(MaskRule.of_colours(ROADS)(path, ROADS), ROAD)


def test_grey_mask_of_four_bits_shows_stretched_greys(tmp_path):
    rows = np.uint8([[0, 0x0F], [0, 0xF0]])
    (tmp_path / "a.png").write_bytes(folders.png(2, 2, 4, 0, rows.tobytes()))
    ids = MaskRule.of_colours(ROADS)(tmp_path / "a.png", ROADS)
    np.testing.assert_array_equal(ids, [[0, 1], [1, 0]])


def test_colour_to_ignore_and_colours_of_no_class(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1], pixels[1, 2] = 255, (9, 8, 7)
    path = save(tmp_path / "a.png", pixels)
    ids = MaskRule.of_colours(ROADS, (9, 8, 7))(path, ROADS)
    np.testing.assert_array_equal(ids, [[0, 1, 0], [0, 0, 255]])
    with pytest.raises(BadInput, match=r"a\.png: .*\b9 8 7\b.*--ignore_colour.*--masks_are"):
        MaskRule.of_colours(ROADS)(path, ROADS)


def test_grey_ids_are_not_colours(tmp_path):
    path = save(tmp_path / "a.png", ROAD)
    with pytest.raises(BadInput, match=r"a\.png: .*1 1 1.*--masks_are=ids"):
        MaskRule.of_colours(ROADS)(path, ROADS)


def test_colours_are_read_in_bands_of_rows_and_counted_over_all_of_them(tmp_path, monkeypatch):
    read = MaskRule.of_colours(ROADS)
    pixels = np.random.default_rng(0).choice(np.uint8([0, 255]), (7, 3, 1)).repeat(3, axis=2)
    path = save(tmp_path / "a.png", pixels)
    for band in (1, 6, 7, 100):
        monkeypatch.setattr(checked_images, "_PIXELS_PER_BAND", band)
        np.testing.assert_array_equal(read(path, ROADS), pixels[..., 0] // 255)
    pixels[:, 1] = np.arange(1, 8)[:, np.newaxis]
    pixels[6, 1] = 1
    monkeypatch.setattr(checked_images, "_PIXELS_PER_BAND", 6)
    with pytest.raises(BadInput, match=r"b\.png: .* 6 .* 5 5 5 and 1 more"):
        read(save(tmp_path / "b.png", pixels), ROADS)
    alpha = np.uint8([[255] * 3] * 6 + [[255, 254, 255]])
    path = save(tmp_path / "c.png", np.dstack([pixels, alpha]))
    with pytest.raises(BadInput, match=r"c\.png: .*transparent"):
        read(path, ROADS)


def test_table_maps_raw_ids(tmp_path):
    rule = MaskRule(ids={7: 1, 9: 255})
    values = save(tmp_path / "values.png", [[7, 9], [9, 7]])
    np.testing.assert_array_equal(rule(values, ROADS), [[1, 255], [255, 1]])
    unknown = save(tmp_path / "unknown.png", [[7, 8]])
    with pytest.raises(BadInput, match=r"unknown\.png: .*\b8$"):
        rule(unknown, ROADS)
    np.testing.assert_array_equal(MaskRule(ids={7: 1}, other=0)(unknown, ROADS), [[1, 0]])


def test_table_maps_colours_of_rgb_and_palette_masks(tmp_path):
    rule = MaskRule("colours", colours={(1, 2, 3): 1}, other=0)
    rgb = save(tmp_path / "rgb.png", [[[1, 2, 3], [40, 2, 4]]])
    palette = palette_mask(tmp_path / "p.png", [[5, 0]], [[90, 1, 1]] * 5 + [[1, 2, 3]])
    for path in (rgb, palette):
        np.testing.assert_array_equal(rule(path, ROADS), [[1, 0]])
    with pytest.raises(BadInput, match=r"rgb\.png: .*40 2 4"):
        MaskRule("colours", colours={(1, 2, 3): 1})(rgb, ROADS)


@pytest.mark.parametrize("other", [0, 255])
def test_a_mask_of_another_kind_is_an_error_whatever_other_says(tmp_path, other):
    """Each of these would silently become a mask of nothing but `other`."""
    by_id = MaskRule(ids={255: 1}, other=other)
    by_colour = MaskRule("colours", colours={(128, 64, 128): 1}, other=other)
    by_grey = MaskRule("colours", colours={(0, 0, 0): 0, (128, 64, 128): 1}, other=other)
    white_road("1").save(tmp_path / "one_bit.png")
    palette_mask(tmp_path / "indexed.png", ROAD, [[0, 0, 0], [255, 255, 255]])
    save(tmp_path / "coloured.png", np.uint8([[0, 0, 0], [128, 64, 128]])[ROAD])
    save(tmp_path / "ids.png", ROAD)
    for rule, name in (
        (by_id, "one_bit"),
        (by_id, "indexed"),
        (by_id, "coloured"),
        (by_colour, "ids"),
        (by_grey, "ids"),
    ):
        with pytest.raises(BadInput, match=rf"{name}\.png: "):
            rule(tmp_path / f"{name}.png", ROADS)


def test_table_of_ids_reads_grey_saved_as_rgb(tmp_path):
    path = save(tmp_path / "a.png", IN_COLOURS)
    np.testing.assert_array_equal(MaskRule(ids={255: 1}, other=0)(path, ROADS), ROAD)


def test_mask_without_a_pixel_of_the_table_is_all_other(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((3, 3)))
    assert (MaskRule(ids={255: 1}, other=0)(path, ROADS) == 0).all()
    path = save(tmp_path / "b.png", np.full((3, 3, 3), (70, 130, 180)))
    rule = MaskRule("colours", colours={(128, 64, 128): 1}, other=0)
    assert (rule(path, ROADS) == 0).all()


DEEP = np.uint16([[0, 1, 20], [255, 2, 0]])


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", DEEP),
        ("a.tif", DEEP),
        ("a.tif", DEEP.astype(np.int32)),
        ("a.png", np.dstack([DEEP, np.full_like(DEEP, 255)]).astype(np.uint8)),
        ("a.png", np.dstack([DEEP] * 3 + [np.full_like(DEEP, 255)]).astype(np.uint8)),
        ("a.bmp", np.dstack([DEEP] * 3).astype(np.uint8)),
    ],
    ids=["png16", "tiff16", "tiff32", "alpha", "rgba", "rgb"],
)
def test_ids_are_read_where_no_information_is_lost(tmp_path, name, pixels):
    Image.fromarray(pixels).save(tmp_path / name)
    np.testing.assert_array_equal(masks.CLASS_IDS(tmp_path / name, VOC), DEEP)


@pytest.mark.parametrize(
    ("name", "pixels", "received"),
    [
        ("a.png", DEEP * 257, "257, 514"),
        ("a.tif", -DEEP.astype(np.int32), "-255, -20"),
        ("a.tif", DEEP.astype(np.float32), "F"),
        ("a.png", np.dstack([DEEP, DEEP]).astype(np.uint8), "transparent"),
    ],
)
def test_ids_are_rejected_where_information_would_be_lost(tmp_path, name, pixels, received):
    Image.fromarray(pixels).save(tmp_path / name)
    with pytest.raises(BadInput, match=rf"{name}: .*{received}.*[Ss]ave it"):
        masks.CLASS_IDS(tmp_path / name, VOC)


def test_deep_mask_has_no_colours(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"a\.png: .*16 bits.*--masks_are=ids"):
        MaskRule.of_colours(ROADS)(tmp_path / "a.png", ROADS)


def test_grey_values_of_no_class_are_named_with_the_remedy(tmp_path):
    with pytest.raises(BadInput, match=r"a\.png: .*\b128\b.*--remap"):
        masks.CLASS_IDS(save(tmp_path / "a.png", [[0, 128]]), VOC)


def test_recorded_rule_reads_as_the_original(tmp_path):
    path = save(tmp_path / "a.png", IN_COLOURS)
    rule = MaskRule.of_colours(ROADS, (1, 2, 3))
    again = MaskRule.recorded(rule.masks_are, rule.mask_colours)
    assert again == rule
    np.testing.assert_array_equal(again(path, ROADS), ROAD)
    assert MaskRule.recorded("ids", ()) == MaskRule()


def test_palettes_that_show_an_id_in_several_colours_contradict_each_other(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    colours = [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    palette_mask(paths[0], [[0, 1, 2]], colours)
    palette_mask(paths[1], [[0, 1, 2]], [*colours, [9, 9, 9]])
    # Colours of ids that do not occur do not matter.
    palette_mask(paths[2], [[0, 1]], [*colours[:2], [7, 7, 7]])
    grey = save(tmp_path / "grey.png", [[0, 1, 2]])
    assert mask_palettes.contradictions([*paths, grey, tmp_path / "missing.png"]) == []
    palette_mask(paths[1], [[0, 1, 2]], [colours[0], colours[2], colours[1]])
    (message,) = mask_palettes.contradictions(paths)
    assert message.startswith(f"{paths[1]}: ")
    assert all(text in message for text in ("id 1", "0 255 0", str(paths[0]), "--masks_are"))


def test_white_is_not_both_a_class_and_ignored(tmp_path):
    for mode in ("1", "L", "RGB"):
        white_road(mode).save(tmp_path / f"{mode}.png")
    bordered = save(tmp_path / "bordered.png", [[0, 1, 255]])
    found = mask_palettes.contradictions([*sorted(tmp_path.glob("?*.png")), bordered])
    assert sorted(text.split(": ")[0] for text in found) == [
        str(tmp_path / "L.png"),
        str(tmp_path / "RGB.png"),
    ]
    assert mask_palettes.contradictions([tmp_path / "L.png", tmp_path / "RGB.png"]) == []


def test_masks_need_no_tensorflow():
    code = "import sys, kseg.data.masks; sys.exit('tensorflow' in sys.modules)"
    environment = os.environ | {"KSEG_WITHOUT_KERAS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("count", [0, 1, 150])
def test_colours_are_looked_up_as_in_a_dictionary(count):
    rng = np.random.default_rng(count)
    colours = {tuple(map(int, rng.integers(0, 6, 3))): int(label) for label in range(count)}
    pixels = rng.integers(0, 6, (40, 50, 3)).astype(np.int32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    labels, known = masks.labels_of_colours(packed, colours)
    expected = [colours.get(tuple(pixel)) for pixel in pixels.reshape(-1, 3).tolist()]
    assert labels.dtype == np.uint8 and labels.shape == packed.shape
    found = np.where(known, labels.astype(int), -1).ravel().tolist()
    assert found == [-1 if label is None else label for label in expected]
