"""Pictures of label maps: colours, overlays, contact sheets, palette PNGs."""

import numpy as np
import pytest
from PIL import Image

from kseg.visualization import pictures

COLOURS = ((0, 0, 0), (200, 10, 30), (20, 220, 40))
LABELS = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)


def test_each_label_gets_its_colour_and_the_rest_the_ignore_colour():
    picture = pictures.colourise(LABELS, COLOURS, ignore_colour=(1, 2, 3))
    assert picture.dtype == np.uint8
    expected = [[COLOURS[0], COLOURS[1], COLOURS[2]], [COLOURS[2], (1, 2, 3), COLOURS[1]]]
    np.testing.assert_array_equal(picture, expected)


def test_overlay_goes_from_the_image_to_the_colours_and_leaves_ignored_pixels():
    np.testing.assert_array_equal(pictures.overlay(IMAGE, LABELS, COLOURS, alpha=0), IMAGE)
    full = pictures.overlay(IMAGE, LABELS, COLOURS, alpha=1)
    valid = LABELS != 255
    np.testing.assert_array_equal(full[valid], pictures.colourise(LABELS, COLOURS)[valid])
    np.testing.assert_array_equal(full[1, 1], IMAGE[1, 1])
    np.testing.assert_array_equal(
        pictures.overlay(IMAGE, LABELS, COLOURS, alpha=0.5)[0, 1], (150, 55, 65)
    )


def test_contact_sheet_shows_every_picture_in_its_column_and_a_legend():
    red = np.full((4, 8, 3), (255, 0, 0), np.uint8)
    green = np.full((4, 4, 3), (0, 255, 0), np.uint8)
    bare = pictures.contact_sheet([(red, green)] * 2, ("image", "label"), cell_size=40)
    pixels = np.asarray(bare)
    half = bare.width // 2
    assert (pixels[:, :half] == (255, 0, 0)).all(-1).sum() == 2 * 40 * 20
    assert (pixels[:, half:] == (0, 255, 0)).all(-1).sum() == 2 * 40 * 40
    with_legend = pictures.contact_sheet(
        [(red, green)] * 2, ("image", "label"), names=("sky",), colours=((0, 0, 255),), cell_size=40
    )
    assert with_legend.width == bare.width and with_legend.height > bare.height
    assert (np.asarray(with_legend) == (0, 0, 255)).all(-1).any()


def test_a_row_of_a_contact_sheet_is_as_high_as_its_highest_picture():
    wide, square = (np.zeros((one, 8, 3), np.uint8) for one in (4, 8))
    heights = [
        pictures.contact_sheet([row, row], ("a", "b"), cell_size=40).height
        for row in ((wide, wide), (wide, square), (square, square))
    ]
    assert heights[1] - heights[0] == 2 * 20 and heights[2] == heights[1]


def test_legend_wraps_instead_of_leaving_the_sheet():
    names = [f"class {index}" for index in range(12)]
    colours = [(index + 1, 0, 200) for index in range(12)]
    sheet = pictures.contact_sheet([(IMAGE,)], ("image",), names=names, colours=colours)
    pixels = np.asarray(sheet)
    for colour in colours:
        assert (pixels == colour).all(-1).any(), f"no legend box of colour {colour}"


def test_palette_png_keeps_the_ids_and_carries_the_colours(tmp_path):
    path = tmp_path / "mask.png"
    pictures.save_palette_png(path, LABELS, COLOURS)
    with Image.open(path) as saved:
        assert saved.mode == "P"
        np.testing.assert_array_equal(np.asarray(saved), LABELS)
        rgb = np.asarray(saved.convert("RGB"))
    np.testing.assert_array_equal(rgb, pictures.colourise(LABELS, COLOURS))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    pictures.save_palette_png(path, LABELS, COLOURS)
    before = path.read_bytes()

    def broken(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        pictures.save_palette_png(path, LABELS[::-1], COLOURS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mask.png"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pictures.colourise(LABELS.astype(int), COLOURS), "`labels` must be a uint8"),
        (lambda: pictures.colourise(LABELS, [(0, 0)]), "`colours` must hold"),
        (lambda: pictures.colourise(LABELS, [(0, 0, 300)]), "`colours` must lie within"),
        (lambda: pictures.overlay(IMAGE[:1], LABELS, COLOURS), "same height and width"),
        (lambda: pictures.overlay(IMAGE, LABELS, COLOURS, alpha=2), "`alpha` must lie"),
        (lambda: pictures.contact_sheet([], ("image",)), "`rows` must hold at least one"),
        (lambda: pictures.contact_sheet([(IMAGE,)], ("a", "b")), "one picture per title"),
        (
            lambda: pictures.contact_sheet([(IMAGE,)], ("a",), names=("b",)),
            "`names` and `colours` must have the same length",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_row_title_stands_above_its_row_and_moves_the_next_ones():
    picture = np.zeros((10, 10, 3), np.uint8)
    rows = [(picture,), (picture,)]
    plain = pictures.contact_sheet(rows, ("image",), cell_size=40)
    titled = pictures.contact_sheet(rows, ("image",), row_titles=("a", "b"), cell_size=40)
    added = (titled.height - plain.height) // 2
    assert added > 10
    for row in range(2):
        top = np.asarray(titled)[30 + row * (48 + added) :][:added]
        assert top.min() < 128, "the title"
        assert (np.asarray(titled)[30 + added + row * (48 + added) :][:40, 8:48] == 0).all()
    with pytest.raises(ValueError, match=r"`row_titles` must hold one title per row \(2\)"):
        pictures.contact_sheet(rows, ("image",), row_titles=("a",))
