"""Label maps as colours: colour tables, colour images and overlays."""

from collections.abc import Sequence

import numpy as np

Colour = Sequence[int]  # (red, green, blue), each within 0..255.

IGNORE_COLOUR = (224, 224, 192)  # The cream that the palette of the VOC devkit has at 255.
WRONG_COLOUR = (255, 32, 32)  # Pixels of `difference` that are predicted as another class.


def colour_table(colours: Sequence[Colour], ignore_colour: Colour = IGNORE_COLOUR) -> np.ndarray:
    """Returns the colours of all 256 label values.

    Args:
        colours: One (red, green, blue) triple per class, in the order of the class ids; at most
            256.
        ignore_colour: Colour of all values that are not a class, such as the ignore label.
            Defaults to the cream of the VOC devkit.

    Returns:
        uint8 array of shape (256, 3).

    Raises:
        ValueError: If `colours` is not a list of 1 to 256 triples within 0..255.
    """
    given = np.asarray(colours)
    if given.ndim != 2 or given.shape[1] != 3 or not 1 <= given.shape[0] <= 256:
        raise ValueError(
            "`colours` must hold 1 to 256 (red, green, blue) triples. "
            f"Received an array of shape {given.shape}."
        )
    if given.min() < 0 or given.max() > 255:
        raise ValueError(
            "`colours` must lie within 0..255. "
            f"Received values from {given.min()} to {given.max()}."
        )
    table = np.empty((256, 3), np.uint8)
    table[:] = ignore_colour
    table[: len(given)] = given
    return table


def colourise(
    labels: np.ndarray, colours: Sequence[Colour], ignore_colour: Colour = IGNORE_COLOUR
) -> np.ndarray:
    """Converts a label map to an RGB image.

    Args:
        labels: uint8 array (height, width) of class ids.
        colours: One (red, green, blue) triple per class.
        ignore_colour: Colour of all values that are not a class. Defaults to the cream of the VOC
            devkit.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: If `labels` is not a two-dimensional uint8 array, or `colours` is invalid as
            described in `colour_table`.
    """
    return colour_table(colours, ignore_colour)[check_labels(labels)]


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    colours: Sequence[Colour],
    alpha: float = 0.5,
    ignore_label: int = 255,
) -> np.ndarray:
    """Blends an image with the colours of its label map.

    Args:
        image: uint8 array (height, width, 3).
        labels: uint8 array (height, width) of class ids.
        colours: One (red, green, blue) triple per class.
        alpha: Weight of the label colours, from 0 (image only) to 1 (labels only). Defaults to
            0.5.
        ignore_label: Label value of the pixels where the image stays unchanged. Defaults to 255.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: If `image` and `labels` differ in size, or `alpha` lies outside 0..1.
    """
    image = check_image(image)
    labels = check_labels(labels)
    if image.shape[:2] != labels.shape:
        raise ValueError(
            "`image` and `labels` must have the same height and width. "
            f"Received: {image.shape[:2]} and {labels.shape}."
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must lie within 0..1. Received: {alpha}.")
    mixed = (1 - alpha) * image.astype(np.float32) + alpha * colourise(labels, colours)
    mixed = np.round(mixed).astype(np.uint8)
    return np.where((labels == ignore_label)[..., np.newaxis], image, mixed)


def difference(
    image: np.ndarray, labels: np.ndarray, predictions: np.ndarray, ignore_label: int = 255
) -> np.ndarray:
    """Shows where a prediction differs from the labels.

    Pixels that are predicted correctly show the image in dark grey. Wrong ones have
    `WRONG_COLOUR`, and ignored ones `IGNORE_COLOUR`.

    Args:
        image: uint8 array (height, width, 3).
        labels: uint8 array (height, width) of class ids.
        predictions: uint8 array (height, width) of class ids.
        ignore_label: Label of ignored pixels. Defaults to 255.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: If the arrays differ in height or width.
    """
    image, labels, predictions = check_image(image), check_labels(labels), check_labels(predictions)
    if not image.shape[:2] == labels.shape == predictions.shape:
        raise ValueError(
            "`image`, `labels` and `predictions` must have the same height and width. "
            f"Received: {image.shape[:2]}, {labels.shape} and {predictions.shape}."
        )
    result = np.repeat(image.mean(axis=-1, keepdims=True) / 2, 3, axis=-1).astype(np.uint8)
    result[labels != predictions] = WRONG_COLOUR
    result[labels == ignore_label] = IGNORE_COLOUR
    return result


def check_labels(labels: np.ndarray) -> np.ndarray:
    """Returns `labels` as an array; raises `ValueError` unless it is uint8 (height, width)."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(
            "`labels` must be a uint8 array (height, width). "
            f"Received: {labels.dtype} of shape {labels.shape}."
        )
    return labels


def check_image(image: np.ndarray) -> np.ndarray:
    """Returns `image` as an array; raises `ValueError` unless it is uint8 (height, width, 3)."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            "`image` must be a uint8 array (height, width, 3). "
            f"Received: {image.dtype} of shape {image.shape}."
        )
    return image
