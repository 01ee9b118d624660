"""The picture of a confusion matrix."""

import numpy as np
import pytest

from kseg.visualization import confusion_matrix

NAMES = ("background", "cat", "dog", "ufo")
#        predicted 0   1   2  3
MATRIX = [[90, 5, 5, 0], [10, 30, 0, 0], [0, 20, 20, 0], [0, 0, 0, 0]]


def cell_colours(picture, count, cell):
    """The colour at the corner of each cell, located from the lower right border."""
    pixels = np.asarray(picture)
    first = picture.height - 10 - count * cell, picture.width - 10 - count * cell
    places = (np.arange(count) * cell + 1)[:, np.newaxis]
    return pixels[first[0] + places, first[1] + places.T]


def test_cells_are_darker_for_larger_fractions_and_grey_without_labelled_pixels():
    picture = confusion_matrix.draw(np.array(MATRIX), NAMES)
    colours = cell_colours(picture, 4, 34).astype(int)
    assert (colours[3] == colours[3, 0]).all() and 200 < colours[3, 0, 0] < 255
    np.testing.assert_array_equal(colours[1, 2], (255, 255, 255))
    brightness = colours[:3].sum(-1)
    fractions = np.array(MATRIX[:3]) / np.sum(MATRIX[:3], axis=1, keepdims=True)
    order = np.argsort(fractions, axis=None, kind="stable")
    assert (np.diff(brightness.ravel()[order]) <= 0).all()
    np.testing.assert_array_equal(brightness[2, 1], brightness[2, 2])


def test_cells_have_percentages_for_at_most_40_classes():
    for count, cell in ((40, 34), (41, 14)):
        picture = confusion_matrix.draw(np.eye(count), [str(number) for number in range(count)])
        side = count * cell
        diagonal = np.asarray(picture)[-10 - side : -10 - side + cell, -10 - side :][:, :cell]
        assert (diagonal == 255).any() == (count == 40)


def test_the_picture_has_room_for_the_longest_name_and_for_many_classes():
    short = confusion_matrix.draw(np.eye(2, dtype=int), ("a", "b"))
    long = confusion_matrix.draw(np.eye(2, dtype=int), ("a", "b with a very long name indeed"))
    assert long.width - short.width == long.height - short.height > 100
    names = [f"class {number}" for number in range(150)]
    many = confusion_matrix.draw(np.eye(150, dtype=int), names)
    assert many.width < 2500
    diagonal = np.diagonal(cell_colours(many, 150, 14).sum(-1))
    assert len(set(diagonal)) == 1 and diagonal[0] < 300


def test_a_matrix_of_another_size_than_the_names_is_refused():
    with pytest.raises(ValueError, match="matrix"):
        confusion_matrix.draw(np.eye(2), ("a", "b", "c"))
