"""What the cells of all figures share: a colour for heat, and titles that fit."""

import numpy as np

from kseg.runs.folder import RunFolder

MAX_TITLE = 30  # Characters that fit above a cell of 240 pixels.


def heat(values: np.ndarray) -> np.ndarray:
    """Colours of numbers: 0 is black, 1/3 red, 2/3 yellow, 1 white, linear in between.

    Args:
        values: Float array of any shape; below 0 counts as 0, above 1 as 1.

    Returns:
        uint8 array with one more axis, (red, green, blue).
    """
    channels = [np.clip(3 * values - step, 0, 1) for step in range(3)]
    return np.round(255 * np.stack(channels, axis=-1)).astype(np.uint8)


def name_of(run: RunFolder) -> str:
    """The name of a run's folder, as the table has it."""
    return run.path.resolve().name


def title_of(run: RunFolder) -> str:
    """The name of a run, cut in the middle where it would run into the next column."""
    name = name_of(run)
    if len(name) <= MAX_TITLE:
        return name
    half = (MAX_TITLE - 2) // 2
    return f"{name[:half]}..{name[-half:]}"
