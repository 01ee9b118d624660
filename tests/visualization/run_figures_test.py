"""What the figures of runs share."""

import numpy as np
import pytest

from kseg.runs.folder import RunFolder
from kseg.visualization.run_figures import heat, run_names


def test_heat_goes_from_black_over_red_and_yellow_to_white():
    colours = heat(np.array([-1.0, 0, 1 / 6, 1 / 3, 2 / 3, 1, 2]))
    assert colours.tolist() == [
        [0, 0, 0], [0, 0, 0], [128, 0, 0], [255, 0, 0], [255, 255, 0], [255] * 3, [255] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/ksac", "runs/aspp/"], ["ksac", "aspp"]),
        (["a/ksac/seed_1", "a/aspp/seed_1"], ["ksac/seed_1", "aspp/seed_1"]),
        (["a/ksac/seed_1", "a/ksac/seed_2", "b/ksac/seed_1"],
         ["a/ksac/seed_1", "a/ksac/seed_2", "b/ksac/seed_1"]),
        (["runs/ksac", "runs/ksac"], ["ksac", "ksac"]),
        ([], []),
    ],
)  # fmt: skip
def test_the_names_of_runs_are_the_ends_of_their_paths_that_tell_them_apart(paths, names):
    assert run_names([RunFolder(path) for path in paths]) == names
