"""Masks whose numbers are not what a person sees: greys of palettes, white as 1 or as 255."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kseg.data import mask_palettes, masks
from kseg.data.checked_images import BadInput
from kseg.data.datasets import LabelSet
from kseg.data.masks import MaskRule
from tests.tfrecords_tools import folders

TWO = LabelSet(("ground", "road"), ((0, 0, 0), (255, 255, 255)))
THREE = LabelSet(("ground", "road", "water"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
IDS = np.uint8([[0, 0, 2], [2, 0, 0]])
BINARY = np.uint8([[0, 0, 1], [1, 0, 0]])
GREYS = [[grey] * 3 for grey in range(256)]


def grey(path, values):
    Image.fromarray(np.uint8(values)).save(path)
    return path


def palette(path, indices, colours, **options):
    picture = Image.fromarray(np.uint8(indices)).convert("L")
    picture.putpalette(np.uint8(colours).ravel().tolist())
    picture.save(path, **options)
    return path


def one_bit(path, values):
    Image.fromarray(np.asarray(values, bool)).save(path)
    return path


def names(messages):
    return sorted(message.split(": ")[0].rpartition("/")[2] for message in messages)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
def test_indices_that_a_palette_shows_as_other_ids_are_rejected(tmp_path, name):
    path = palette(tmp_path / name, BINARY, [[0] * 3, [2] * 3])
    rules = (
        MaskRule(),
        MaskRule(ids={0: 0, 1: 1, 2: 1}),
        MaskRule(ids={0: 0, 2: 1}, other=0),
        MaskRule(ids={2: 1}, other=0),
    )
    for rule in rules:
        with pytest.raises(BadInput, match=name):
            rule(path, THREE)
    np.testing.assert_array_equal(MaskRule(trusts_palettes=True)(path, THREE), BINARY)


def test_greys_that_a_quantiser_has_renumbered_are_rejected(tmp_path):
    Image.fromarray(np.dstack([IDS] * 3)).quantize(2).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    with pytest.raises(BadInput, match=r"a\.png"):
        masks.CLASS_IDS(tmp_path / "a.png", THREE)


@pytest.mark.parametrize(
    "colours",
    [GREYS, [[0] * 3, [255] * 3], [[255] * 3, [0] * 3], [[0] * 3, [128] * 3],
     [[0] * 3, [2] * 3, [9, 0, 0]]],
    ids=["the ids", "white", "black", "grey of no id", "a colour"],
)  # fmt: skip
def test_indices_with_a_palette_for_people_stay_ids(tmp_path, colours):
    path = palette(tmp_path / "a.png", BINARY, colours)
    np.testing.assert_array_equal(masks.CLASS_IDS(path, THREE), BINARY)


def test_white_of_a_palette_is_not_both_a_class_and_ignored(tmp_path):
    indexed = palette(tmp_path / "indexed.png", BINARY, [[0] * 3, [255] * 3])
    white = grey(tmp_path / "white.png", BINARY * 255)
    deep = tmp_path / "deep.png"
    Image.fromarray(BINARY.astype(np.uint16) * 255).save(deep)
    found = mask_palettes.contradictions([indexed, white, deep])
    assert names(found) == ["deep.png", "white.png"]
    # 255 of a palette with all greys is no class.
    full = palette(tmp_path / "full.png", BINARY * 255, GREYS)
    assert names(mask_palettes.contradictions([indexed, full])) != []
    assert mask_palettes.contradictions([full, white]) == []


def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_named(tmp_path):
    ones, whites = grey(tmp_path / "ones.png", BINARY), grey(tmp_path / "whites.png", BINARY * 255)
    assert names(mask_palettes.contradictions([ones, whites])) == ["whites.png"]
    ignored = grey(tmp_path / "ignored.png", np.full_like(BINARY, 255))
    assert mask_palettes.contradictions([ones, ignored]) == []
    assert mask_palettes.contradictions([ones]) == mask_palettes.contradictions([whites]) == []
    # One mask that has both, or a third class, shows that 255 is not the road.
    for name, values in (("border", [[0, 1, 255]]), ("more", [[0, 2, 1]])):
        decided = grey(tmp_path / f"{name}.png", values)
        assert mask_palettes.contradictions([ones, whites, decided]) == []
    table = MaskRule(ids={0: 0, 1: 1, 255: 1})
    assert mask_palettes.contradictions([ones, whites], table) == []
    swallowed = MaskRule(ids={0: 0, 1: 1}, other=255)
    assert names(mask_palettes.contradictions([ones, whites], swallowed)) == ["whites.png"]


def test_a_mask_of_1_bit_contradicts_a_palette_with_another_black_or_white(tmp_path):
    bit = one_bit(tmp_path / "bit.png", BINARY)
    same = palette(tmp_path / "same.png", BINARY, [[0] * 3, [255] * 3])
    red = palette(tmp_path / "red.png", BINARY, [[0] * 3, [255, 0, 0]])
    assert mask_palettes.contradictions([bit, same]) == []
    assert mask_palettes.contradictions([bit, red]) == []
    turned = palette(tmp_path / "turned.png", 1 - BINARY, [[255] * 3, [0] * 3])
    assert names(mask_palettes.contradictions([bit, turned])) == ["turned.png"]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_ids_of_a_tiff_whose_white_is_0_are_the_stored_values(tmp_path, mode):
    path = tmp_path / "a.tif"
    shown = Image.fromarray(BINARY == 0) if mode == "1" else Image.fromarray(255 - BINARY)
    shown.save(path, tiffinfo={262: 0})
    assert Image.open(path).tag_v2[262] == 0
    np.testing.assert_array_equal(masks.CLASS_IDS(path, TWO), BINARY)
    if mode == "1":
        np.testing.assert_array_equal(MaskRule.of_colours(TWO)(path, TWO), 1 - BINARY)
        bit = one_bit(tmp_path / "bit.png", BINARY)
        assert names(mask_palettes.contradictions([bit, path])) == ["a.tif"]
    with pytest.raises(BadInput, match=r"a\.tif"):
        MaskRule(ids={255: 1}, other=0)(path, TWO)


def coloured(path, mode):
    """Saves the ids 0 and 1 in greys, as a mask that is no mask of colours."""
    picture = Image.fromarray(BINARY * (255 if mode == "white" else 1))
    if mode == "P":
        return palette(path, BINARY, GREYS)
    picture.convert("RGB").save(path)
    return path


@pytest.mark.parametrize("mode", ["ids", "white", "P"])
def test_greys_in_rgb_or_a_palette_are_no_colours_whatever_other_says(tmp_path, mode):
    path = coloured(tmp_path / "a.png", mode)
    rule = MaskRule("colours", colours={(128, 64, 128): 1}, other=0)
    with pytest.raises(BadInput, match=r"a\.png"):
        rule(path, TWO)
    by_white = MaskRule("colours", colours={(255, 255, 255): 1}, other=0)
    if mode == "white":
        np.testing.assert_array_equal(by_white(path, TWO), BINARY)
    else:
        with pytest.raises(BadInput, match=r"a\.png"):
            by_white(path, TWO)
    black = tmp_path / "black.png"
    Image.new("RGB", (3, 2)).save(black)
    assert (rule(black, TWO) == 0).all()
    beside = np.dstack([BINARY * 128, BINARY * 64, BINARY * 128])
    beside[0, 0] = 70
    Image.fromarray(beside).save(tmp_path / "b.png")
    np.testing.assert_array_equal(rule(tmp_path / "b.png", TWO), BINARY)


def test_ids_are_not_swallowed_by_a_table_for_white(tmp_path):
    rule = MaskRule(ids={255: 1}, other=0)
    red = palette(tmp_path / "red.png", BINARY, [[0] * 3, [255, 0, 0]])
    for path in (grey(tmp_path / "ones.png", BINARY), red):
        with pytest.raises(BadInput, match=path.name):
            rule(path, TWO)
    # Here `other` is what the user wants to find.
    rule = MaskRule(ids={0: 0, 255: 255}, other=1)
    np.testing.assert_array_equal(rule(tmp_path / "ones.png", TWO), BINARY)


def test_palette_masks_without_an_id_of_the_table_are_named_beside_grey_ones(tmp_path):
    rule = MaskRule(ids={0: 0, 7: 1}, other=0)
    sevens = grey(tmp_path / "sevens.png", BINARY * 7)
    red = palette(tmp_path / "red.png", BINARY, [[0] * 3, [255, 0, 0]])
    assert names(mask_palettes.contradictions([sevens, red], rule)) == ["red.png"]
    known = palette(tmp_path / "known.png", BINARY * 7, [[0] * 3, *[[255, 0, 0]] * 7])
    assert mask_palettes.contradictions([sevens, known], rule) == []
    assert mask_palettes.contradictions([red], rule) == []


def test_an_index_without_a_colour_is_rejected_where_masks_are_colours(tmp_path):
    path = palette(tmp_path / "a.png", IDS, [[0] * 3, [255] * 3, [9] * 3], bits=8)
    contents = path.read_bytes()
    start = contents.find(b"PLTE") - 4
    chunk = b"PLTE" + contents[start + 8 : start + 14]
    chunk = struct.pack(">I", 6) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(contents[:start] + chunk + contents[start + 12 + 9 :])
    with pytest.raises(BadInput, match=r"a\.png: .*\b2\b"):
        MaskRule.of_colours(TWO)(path, TWO)
    np.testing.assert_array_equal(masks.CLASS_IDS(path, THREE), IDS)


def test_a_lossy_tiff_is_no_mask(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.kron(IDS, np.ones((8, 8), np.uint8))).save(path, compression="jpeg")
    for rule in (MaskRule(), MaskRule.of_colours(TWO)):
        with pytest.raises(BadInput, match=r"a\.tif: .*JPEG"):
            rule(path, THREE)
    Image.fromarray(IDS).save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(masks.CLASS_IDS(path, THREE), IDS)


def test_files_that_are_no_images_are_left_to_their_reader(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    folders.mask(tmp_path / "b.png")
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    assert mask_palettes.contradictions(paths) == []


def test_a_tiff_of_signed_bytes_holds_no_negative_ids(tmp_path):
    path = tmp_path / "a.tif"
    for last in (2, 255):
        pixels = np.uint8([[0, 1, last]])
        Image.fromarray(pixels).save(path, tiffinfo={339: 2})
        assert Image.open(path).tag_v2[339] in (2, (2,))
        if last == 2:
            np.testing.assert_array_equal(masks.CLASS_IDS(path, THREE), pixels)
        else:
            with pytest.raises(BadInput, match=r"a\.tif: .*-1"):
                masks.CLASS_IDS(path, THREE)
