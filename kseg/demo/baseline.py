"""The baseline of the demo: each pixel gets the class whose mean colour is nearest."""

import os

import numpy as np

from kseg.data.manifests import read_manifest
from kseg.data.pipeline import eval_dataset
from kseg.recipe.metrics import ConfusionMatrix, Scores, scores


def mean_colours(data_dir: str | os.PathLike, split: str) -> np.ndarray:
    """Returns the mean colour of each class over the labelled pixels of a split.

    Args:
        data_dir: Folder of the shards.
        split: Name of the split.

    Returns:
        float64 array (classes, 3), RGB 0..255; NaN for a class without pixels.
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
        colours: float array (classes, 3); a class with NaN is never chosen.

    Returns:
        uint8 array (...) of class ids.
    """
    # |image - colour|^2 without |image|^2, which is the same for all classes.
    distances = (colours**2).sum(-1) - 2 * (images.astype(np.float64) @ colours.T)
    return np.argmin(np.nan_to_num(distances, nan=np.inf), axis=-1).astype(np.uint8)


def score_nearest_mean_colour(
    data_dir: str | os.PathLike, train_split: str, val_split: str
) -> Scores:
    """Learns the mean colours on one split and evaluates them on all labelled pixels of another."""
    colours = mean_colours(data_dir, train_split)
    label_set = read_manifest(data_dir, val_split).label_set()
    matrix = ConfusionMatrix(label_set.num_classes, label_set.ignore_label)
    for images, labels in eval_dataset(data_dir, val_split).as_numpy_iterator():
        matrix.count(labels, nearest_mean_colour(images, colours))
    return scores(matrix.matrix())
