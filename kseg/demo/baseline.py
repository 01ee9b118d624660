"""The baseline of the demo: each pixel takes the class whose mean colour is nearest."""

import os

import numpy as np

from kseg.data.pipeline import eval_dataset
from kseg.data.records import read_manifest
from kseg.recipe.metrics import Scores, scores


def mean_colours(data_dir: str | os.PathLike, split: str) -> np.ndarray:
    """Returns the mean colour of each class over the labelled pixels of a split.

    Args:
        data_dir: Folder of the shards.
        split: Split to learn from.

    Returns:
        float64 array (classes, 3), RGB 0..255; `nan` for a class that never occurs.
    """
    classes = read_manifest(data_dir, split).label_set().num_classes
    sums, counts = np.zeros((classes, 3)), np.zeros(classes)
    for images, labels in eval_dataset(data_dir, split).as_numpy_iterator():
        labels = labels.ravel()
        counts += np.bincount(labels, minlength=256)[:classes]
        for channel in range(3):
            weights = images[..., channel].ravel()
            sums[:, channel] += np.bincount(labels, weights, minlength=256)[:classes]
    with np.errstate(invalid="ignore"):
        return sums / counts[:, np.newaxis]


def nearest_mean_colour(images: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Returns the class whose colour is nearest in RGB, for each pixel.

    Args:
        images: uint8 array (..., 3).
        colours: float array (classes, 3); a class of `nan` is never chosen.

    Returns:
        uint8 array (...) of class ids.
    """
    # |image - colour|^2 without |image|^2, which is the same for all classes.
    distances = (colours**2).sum(-1) - 2 * (images.astype(np.float64) @ colours.T)
    return np.argmin(np.nan_to_num(distances, nan=np.inf), axis=-1).astype(np.uint8)


def score_nearest_mean_colour(
    data_dir: str | os.PathLike, train_split: str, val_split: str
) -> Scores:
    """Learns mean colours on one split and measures them on another, on every labelled pixel."""
    colours = mean_colours(data_dir, train_split)
    classes = len(colours)
    matrix = np.zeros((classes, classes), np.int64)
    for images, labels in eval_dataset(data_dir, val_split).as_numpy_iterator():
        valid = labels < classes
        pairs = labels[valid].astype(np.int64) * classes
        pairs += nearest_mean_colour(images[valid], colours)
        matrix += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return scores(matrix)
