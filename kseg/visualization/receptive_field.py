"""Receptive fields: how much each pixel of an image affects the class of one, as in GCN Fig. 3."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs.folder import RunFolder
from kseg.visualization.run_figures import heat
from kseg.visualization.sheets import contact_sheet, fitted

ENERGY_FRACTION = 0.95
CELL_SIZE = 360
MAX_PIXELS = 4_000_000  # The gradient keeps all feature maps of the network in memory.
_HEAT = 0.6  # Weight of the colours that are laid over the image.
_MARK = (0, 255, 255)


class ReceptiveField:
    """Figure of the gradient of one pixel's class with respect to an image, one column per run.

    The first column is the image. The others show the gradient of the logit of the predicted class
    at the chosen pixel: absolute, summed over red, green and blue, and divided by its maximum. Its
    square root is coloured by `run_figures.heat` and laid over the image; without the root all but
    a few pixels would be black, since gradients fall off quickly. A cross marks the pixel, and an
    outline the square around it that contains 95 % of the gradient's energy. The title of a column
    gives the run, the predicted class and the side of the square, as do the lines of `notes`.

    Args:
        image: uint8 array (height, width, 3), RGB, of at most 4,000,000 pixels.
        pixel: (row, column) in the image, as integers or strings. Defaults to the middle,
            (height // 2, width // 2), also where it is empty.

    Raises:
        UserError: If the pixel lies outside the image, or the image is too large.

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 3: the valid receptive field "for the score map located at the center
        of the bird". Departure: the paper uses the method of a work that it cites, without
        describing it; we use the gradient instead. It is zero outside the receptive field of the
        network and small where the network does not use it.
    """

    name = "receptive_field"

    def __init__(self, image: np.ndarray, pixel: Sequence[int | str] | None = None) -> None:
        height, width = image.shape[:2]
        if height * width > MAX_PIXELS:
            raise UserError(
                f"`--receptive_field` must be an image of at most {MAX_PIXELS} pixels. Received: "
                f"{width} x {height}"
            )
        self.notes: list[str] = []
        self._image = image
        self._pixel = _checked(pixel, height, width) if pixel else (height // 2, width // 2)
        self._columns = [("image", self._marked(image, None))]

    def add(self, name: str, run: RunFolder, model: Segmenter) -> None:
        """Adds the column of a run, and a note with the side of its square."""
        gradient, winner = gradient_map(model, self._image, self._pixel)
        side = square_side(gradient, self._pixel)
        row, column = self._pixel
        winning = run.label_set.names[winner]
        self.notes.append(
            f"receptive field: {name}, {winning} at row {row}, column {column}: "
            f"{ENERGY_FRACTION:.0%} of the gradient's energy within a square of {side} pixels"
        )
        colours = heat(np.sqrt(gradient / max(gradient.max(), np.finfo(np.float64).tiny)))
        mixed = np.round((1 - _HEAT) * self._image + _HEAT * colours).astype(np.uint8)
        title = f"{name}: {winning}, {side} pixels"
        self._columns.append((title, self._marked(mixed, side)))

    def picture(self) -> Image.Image:
        """Returns the figure of the runs added so far."""
        titles, columns = zip(*self._columns, strict=True)
        return contact_sheet([columns], titles, cell_size=CELL_SIZE)

    def _marked(self, picture: np.ndarray, side: int | None) -> np.ndarray:
        """Draws a cell with a cross at the pixel and, if `side` is given, the square around it."""
        cell = Image.fromarray(fitted(picture, CELL_SIZE))
        pen = ImageDraw.Draw(cell)
        scale = max(cell.size) / max(picture.shape[:2])
        y, x = (int((place + 0.5) * scale) for place in self._pixel)
        pen.line((x - 5, y, x + 5, y), fill=_MARK)
        pen.line((x, y - 5, x, y + 5), fill=_MARK)
        if side:
            reach = side / 2 * scale
            pen.rectangle((x - reach, y - reach, x + reach, y + reach), outline=_MARK)
        return np.asarray(cell)


def _checked(pixel: Sequence[int | str], height: int, width: int) -> tuple[int, int]:
    try:
        row, column = map(int, pixel)
        if 0 <= row < height and 0 <= column < width:
            return row, column
    except ValueError:
        pass
    raise UserError(
        f"`--pixel` must be ROW,COLUMN within 0..{height - 1} and 0..{width - 1}. "
        f"Received: {','.join(map(str, pixel))}"
    )


def gradient_map(
    model: keras.Model, image: np.ndarray, pixel: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Computes the gradient of the predicted class's logit at a pixel with respect to an image.

    Args:
        model: A network of `kseg.models`. It is called in inference mode: without dropout, and with
            the moving statistics of its normalisation layers.
        image: uint8 array (height, width, 3), RGB.
        pixel: (row, column).

    Returns:
        Two values: the absolute gradient summed over red, green and blue, a float64 array (height,
        width) in logits per intensity level of 0..255; and the id of the predicted class.
    """
    row, column = pixel
    images = tf.constant(image[np.newaxis], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = model(images, training=False)[0, row, column]
        winner = int(tf.argmax(scores))
        score = scores[winner]
    gradient = tape.gradient(score, images)[0].numpy().astype(np.float64)
    return np.abs(gradient).sum(axis=-1), winner


def square_side(
    gradient: np.ndarray, pixel: tuple[int, int], fraction: float = ENERGY_FRACTION
) -> int:
    """Returns the side of the smallest square around a pixel that contains most of the energy.

    The energy of a pixel is the square of its gradient. The square is centred on the pixel, so its
    side is odd, and it may extend beyond the image.

    Args:
        gradient: Float array (height, width) without negative values.
        pixel: (row, column).
        fraction: Fraction of the energy, above 0 and at most 1. Defaults to 0.95.

    Returns:
        Side in pixels; 0 where the gradient is 0 everywhere.
    """
    energy = np.square(gradient)
    if not energy.any():
        return 0
    rows, columns = (
        np.abs(np.arange(size) - place) for size, place in zip(gradient.shape, pixel, strict=True)
    )
    distance = np.maximum(rows[:, np.newaxis], columns)
    within = np.cumsum(np.bincount(distance.ravel(), energy.ravel()))
    # Relative to the last cumulative sum, which rounding cannot put below a fraction of 1.
    return 2 * int(np.searchsorted(within, fraction * within[-1])) + 1
