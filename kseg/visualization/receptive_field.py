"""Which pixels decide the class of one pixel: the receptive fields of GCN Fig. 3."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from kseg.errors import UserError
from kseg.runs.folder import RunFolder
from kseg.visualization import cells, pictures

SHARE = 0.95
CELL_SIZE = 360
MAX_PIXELS = 4_000_000  # The gradient needs every map of the network at once.
_HEAT = 0.6  # Weight of the colours over the photograph.
_MARK = (0, 255, 255)


class ReceptiveField:
    """The gradient of one pixel's class over one photograph: columns image and each run.

    Drawn is the gradient of the winning class's logit at the chosen pixel with respect to the
    photograph: absolute, summed over red, green and blue, divided by its maximum. Its square root
    is coloured by `cells.heat` and laid over the photograph, since gradients fall off so fast that
    they would be black but for a few pixels. The pixel has a cross; the square around it that holds
    95 % of the gradient's energy is outlined. Above a column stand the run, the winning class and
    the side of the square; `notes` has them as text.

    Args:
        image: uint8 array (height, width, 3), RGB, of at most 4,000,000 pixels.
        pixel: (row, column) in it, integers or their text. None or empty: the middle,
            (height // 2, width // 2).

    Raises:
        UserError: The pixel lies outside, or the image is too large.

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 3: the valid receptive field "for the score map located at the center
        of the bird". Departure: the paper takes the measure of a work that it cites and does not
        describe it; the gradient stands here in its place. It is zero beyond the network's
        receptive field and small where the network does not make use of it.
    """

    name = "receptive_field"

    def __init__(self, image: np.ndarray, pixel: Sequence[int] | None = None):
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

    def add(self, run: RunFolder, model: keras.Model) -> None:
        """Adds the column of a run, and a note with the side of its square."""
        gradient, winner = gradient_map(model, self._image, self._pixel)
        side = square_side(gradient, self._pixel)
        row, column = self._pixel
        name = run.label_set.names[winner]
        self.notes.append(
            f"receptive field: {cells.name_of(run)}, {name} at row {row}, column {column}: "
            f"{SHARE:.0%} of the gradient's energy within a square of {side} pixels"
        )
        colours = cells.heat(np.sqrt(gradient / max(gradient.max(), np.finfo(np.float64).tiny)))
        mixed = np.round((1 - _HEAT) * self._image + _HEAT * colours).astype(np.uint8)
        title = f"{cells.title_of(run)}: {name}, {side} pixels"
        self._columns.append((title, self._marked(mixed, side)))

    def picture(self) -> Image.Image:
        """The figure of the runs that were added."""
        titles, columns = zip(*self._columns, strict=True)
        return pictures.contact_sheet([columns], titles, cell_size=CELL_SIZE)

    def _marked(self, picture: np.ndarray, side: int | None) -> np.ndarray:
        """A cell with a cross at the pixel and, if it has a side, the square around it."""
        cell = Image.fromarray(pictures.fitted(picture, CELL_SIZE))
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
        f"`--pixel` must be ROW,COLUMN within the image, 0..{height - 1} and 0..{width - 1}. "
        f"Received: {','.join(map(str, pixel))}"
    )


def gradient_map(
    model: keras.Model, image: np.ndarray, pixel: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """The gradient of the winning class's logit at a pixel with respect to the image.

    Args:
        model: A network of `kseg.models`, as it predicts: no dropout, normalisation by its moving
            statistics.
        image: uint8 array (height, width, 3), RGB.
        pixel: (row, column).

    Returns:
        float64 array (height, width), the absolute gradient summed over red, green and blue, in
        logits for a level of 0..255; and the id of the winning class.
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


def square_side(gradient: np.ndarray, pixel: tuple[int, int], share: float = SHARE) -> int:
    """The side of the smallest square around a pixel that holds a share of the energy.

    Energy is the square of what `gradient_map` returns. The pixel is in the middle, so the side is
    odd; what of the square lies beyond the image holds nothing.

    Args:
        gradient: Float array (height, width), none below 0.
        pixel: (row, column).
        share: Above 0, at most 1. Defaults to 0.95.

    Returns:
        Side in pixels; 0 where the gradient is 0 everywhere.
    """
    energy = np.square(gradient)
    if not energy.any():
        return 0
    rows, columns = (
        np.abs(np.arange(side) - place) for side, place in zip(gradient.shape, pixel, strict=True)
    )
    distance = np.maximum(rows[:, np.newaxis], columns)
    within = np.cumsum(np.bincount(distance.ravel(), energy.ravel()))
    # The sum's own last value, so that rounding cannot put a share of 1 out of reach.
    return 2 * int(np.searchsorted(within, share * within[-1])) + 1
