"""What the figures of runs share."""

import numpy as np

from kseg.visualization.run_figures import heat


def test_heat_goes_from_black_over_red_and_yellow_to_white():
    colours = heat(np.array([-1.0, 0, 1 / 6, 1 / 3, 2 / 3, 1, 2]))
    assert colours.tolist() == [
        [0, 0, 0], [0, 0, 0], [128, 0, 0], [255, 0, 0], [255, 255, 0], [255] * 3, [255] * 3,
    ]  # fmt: skip
