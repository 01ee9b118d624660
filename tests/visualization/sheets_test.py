"""Contact sheets and legends."""

import numpy as np
import pytest

from kseg.visualization import sheets

IMAGE = np.full((2, 3, 3), 100, np.uint8)


def test_a_contact_sheet_shows_each_picture_in_its_column_and_a_legend():
    red = np.full((4, 8, 3), (255, 0, 0), np.uint8)
    green = np.full((4, 4, 3), (0, 255, 0), np.uint8)
    bare = sheets.contact_sheet([(red, green)] * 2, ("image", "label"), cell_size=40)
    pixels = np.asarray(bare)
    half = bare.width // 2
    assert (pixels[:, :half] == (255, 0, 0)).all(-1).sum() == 2 * 40 * 20
    assert (pixels[:, half:] == (0, 255, 0)).all(-1).sum() == 2 * 40 * 40
    with_legend = sheets.contact_sheet(
        [(red, green)] * 2, ("image", "label"), names=("sky",), colours=((0, 0, 255),), cell_size=40
    )
    assert with_legend.width == bare.width and with_legend.height > bare.height
    assert (np.asarray(with_legend) == (0, 0, 255)).all(-1).any()


def test_a_row_is_as_high_as_its_highest_picture():
    wide, square = (np.zeros((height, 8, 3), np.uint8) for height in (4, 8))
    heights = [
        sheets.contact_sheet([row, row], ("a", "b"), cell_size=40).height
        for row in ((wide, wide), (wide, square), (square, square))
    ]
    assert heights[1] - heights[0] == 2 * 20 and heights[2] == heights[1]


def test_the_legend_of_a_contact_sheet_wraps_at_its_right_border():
    names = [f"class {index}" for index in range(12)]
    colours = [(index + 1, 0, 200) for index in range(12)]
    sheet = sheets.contact_sheet([(IMAGE,)], ("image",), names=names, colours=colours)
    pixels = np.asarray(sheet)
    for colour in colours:
        assert (pixels == colour).all(-1).any(), f"no legend box of colour {colour}"


def test_a_row_title_is_drawn_above_its_row_and_moves_the_rows_down():
    picture = np.zeros((10, 10, 3), np.uint8)
    rows = [(picture,), (picture,)]
    plain = sheets.contact_sheet(rows, ("image",), cell_size=40)
    titled = sheets.contact_sheet(rows, ("image",), row_titles=("a", "b"), cell_size=40)
    added = (titled.height - plain.height) // 2
    assert added > 10
    for row in range(2):
        top = np.asarray(titled)[30 + row * (48 + added) :][:added]
        assert top.min() < 128, "no title"
        assert (np.asarray(titled)[30 + added + row * (48 + added) :][:40, 8:48] == 0).all()


def test_a_title_wider_than_its_column_does_not_reach_the_next_column():
    sheet = sheets.contact_sheet([(IMAGE, IMAGE)], ("a long title " * 9, "b"), cell_size=120)
    heading = np.asarray(sheet)[8:28].min(axis=(0, 2)) < 128
    assert heading[8:118].any() and not heading[129:136].any()
    assert heading[100:128].any(), "the end of the title is shown, too"


def test_the_legend_has_one_line_per_class_and_room_for_the_longest_name():
    colours = [(200, 0, 0), (0, 200, 0)]
    short = sheets.legend(("a", "b"), colours)
    long = sheets.legend(("a", "the longest name of a class"), colours)
    assert long.height == short.height and long.width > short.width + 100
    pixels = np.asarray(long)
    rows = [np.flatnonzero((pixels == colour).all(-1).any(axis=1)) for colour in colours]
    assert rows[0].max() < rows[1].min()
    assert (pixels[:, -4:] == 255).all() and (pixels[:, -24:-4] < 128).any()


def test_rows_side_by_side_are_read_from_left_to_right_and_then_down():
    greys = range(10, 60, 10)
    rows = [[np.full((20, 40, 3), grey, np.uint8)] * 2 for grey in greys]
    titles = [f"row {grey}" for grey in greys]
    sheet = sheets.contact_sheet(rows, ("a", "b"), row_titles=titles, across=3, cell_size=40)
    pixels = np.asarray(sheet)
    block, line = 2 * 48 + 16, 22 + 20 + 8
    assert pixels.shape == (30 + 2 * line, 3 * block - 16 + 8, 3)
    for index, grey in enumerate(greys):
        left, top = 8 + index % 3 * block, 30 + index // 3 * line
        for column in (left, left + 48):
            assert (pixels[top + 22 : top + 42, column : column + 40] == grey).all()
        assert pixels[top : top + 22, left : left + 88].min() < 128, "a title above each row"
    assert (pixels[30 + line :, 8 + 2 * block :] == 255).all(), "the last place is empty"
    heads = pixels[8:30].min(axis=(0, 2)) < 128
    assert [heads[8 + place * 48 + place // 2 * 16 :][:40].any() for place in range(6)] == [
        True
    ] * 6


def test_a_row_title_wider_than_its_row_is_shortened():
    sheet = sheets.contact_sheet(
        [(IMAGE,)] * 2, ("a",), row_titles=("a long title " * 9,) * 2, across=2, cell_size=120
    )
    title = np.asarray(sheet)[30:52].min(axis=(0, 2)) < 128
    assert title[100:128].any() and not title[129:150].any()


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_grid_is_bounded_and_has_the_largest_cells_that_fit(columns):
    picture = np.zeros((8, 8, 3), np.uint8)
    sizes = []
    for count in (1, 2, 3, 8, 16, 24, 40):
        across, cell_size = sheets.grid(count, columns)
        sizes.append(cell_size)
        sheet = sheets.contact_sheet(
            [(picture,) * columns] * count, "a" * columns, row_titles="b" * count,
            across=across, cell_size=cell_size,
        )  # fmt: skip
        assert sheet.width <= sheets.MAX_WIDTH and sheet.height <= sheets.MAX_HEIGHT
        assert across <= count
    assert sizes[0] == 360 and sizes == sorted(sizes, reverse=True) and sizes[-1] > 100


def test_a_grid_of_very_many_rows_keeps_cells_that_can_be_seen():
    across, cell_size = sheets.grid(5000, 4)
    assert cell_size == 64 and 4 * across * 72 <= 1600


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: sheets.contact_sheet([], ("image",)), "rows"),
        (lambda: sheets.contact_sheet([(IMAGE,)], ("a", "b")), "rows"),
        (lambda: sheets.contact_sheet([(IMAGE,)], ("a",), names=("b",)), "`names` and `colours`"),
        (lambda: sheets.contact_sheet([(IMAGE,)] * 2, ("a",), row_titles=("b",)), "row_titles"),
        (lambda: sheets.contact_sheet([(IMAGE[..., 0],)], ("a",)), "image"),
    ],
)
def test_invalid_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=argument):
        call()
