"""The sheet of the images with the lowest IoU."""

import numpy as np
import pytest

from kseg.data.datasets import LabelSet
from kseg.visualization import sheets
from kseg.visualization.label_maps import IGNORE_COLOUR, WRONG_COLOUR
from kseg.visualization.worst_sheet import MAX_IMAGES, WorstSheet

LABELS = LabelSet(("ground", "cat", "dog"), ((10, 20, 30), (200, 0, 0), (0, 0, 200)))
TOP, LEFT = 30 + 22, 8


def add(sheet, grey, iou, size=(30, 40), name=""):
    """Adds a grey image of ground whose left half is predicted as cat and whose end is ignored."""
    labels = np.zeros(size, np.uint8)
    labels[-size[0] // 3 :] = 255
    prediction = np.zeros(size, np.uint8)
    prediction[:, : size[1] // 2] = 1
    sheet.add(name or f"grey {grey}", iou, np.full((*size, 3), grey, np.uint8), labels, prediction)


def first_cells(sheet, count):
    """The greys of the first pixels of the rows, in the order of reading."""
    across, cell_size = sheets.grid(count, 4)
    pixels = np.asarray(sheet.picture())
    width = 4 * (cell_size + 8) + 16
    height = 22 + cell_size * 3 // 4 + 8
    return [
        int(pixels[TOP + index // across * height + 5, LEFT + index % across * width + 5, 0])
        for index in range(count)
    ]


def test_the_worst_images_are_shown_from_the_worst_and_no_others_are_kept():
    sheet = WorstSheet(LABELS, 8)
    values = np.random.default_rng(0).permutation(np.arange(100, 130)).tolist()
    for value in values:
        add(sheet, value, value / 200)
        assert len(sheet._rows) <= 8
    assert first_cells(sheet, 8) == list(range(100, 108))


def test_the_image_that_was_measured_first_wins_a_tie():
    sheet = WorstSheet(LABELS, 2)
    for grey in (50, 60, 70):
        add(sheet, grey, 0.5)
    assert first_cells(sheet, 2) == [50, 60]


def test_the_difference_shows_wrong_and_ignored_pixels():
    sheet = WorstSheet(LABELS, 1)
    add(sheet, 100, 0.5, (36, 48))
    pixels = np.asarray(sheet.picture())
    height, step = 270, 368
    label, prediction, difference = (
        pixels[TOP : TOP + height, LEFT + column * step : LEFT + column * step + 360]
        for column in (1, 2, 3)
    )
    assert (label[:180] == LABELS.colours[0]).all() and (label[180:] == IGNORE_COLOUR).all()
    assert (prediction[:, :180] == LABELS.colours[1]).all()
    assert (difference[:180, :180] == WRONG_COLOUR).all(), "wrong"
    assert (difference[:180, 180:] == 50).all(), "right"
    assert (difference[180:] == IGNORE_COLOUR).all()
    below = pixels[TOP + height :].reshape(-1, 3)
    shown = [*LABELS.colours, IGNORE_COLOUR, WRONG_COLOUR]
    in_legend = [(below == colour).all(-1).any() for colour in shown]
    assert in_legend == [True, True, False, True, True], "the legend has what occurs"


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 20, 21, MAX_IMAGES])
@pytest.mark.parametrize("size", [(30, 40), (40, 30), (7, 700), (700, 7)])
def test_the_sheet_is_bounded_for_images_of_any_size(count, size):
    sheet = WorstSheet(LABELS, count)
    for number in range(count):
        add(sheet, number, 0.5, size, f"a long name of an image {number} " * 20)
    picture = sheet.picture()
    assert picture.width <= 1600 and picture.height <= 2400 + 40


def test_a_sheet_of_fewer_images_than_asked_for_shows_them_all():
    sheet = WorstSheet(LABELS, 20)
    add(sheet, 100, 0.5)
    assert sheet.picture().width == 4 * (sheets.grid(20, 4)[1] + 8) + 8


@pytest.mark.parametrize("count", [0, MAX_IMAGES + 1])
def test_invalid_counts_are_refused(count):
    with pytest.raises(ValueError, match="`count`"):
        WorstSheet(LABELS, count)
