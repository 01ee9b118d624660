"""The predictions of an evaluation, image by image: a file from which evaluations are compared.

The file is an `.npz` with `names`, the names of the images; `counts`, int64 `(images, 3, classes)`,
the pixels of each class that are labelled, predicted and correct; and `prediction_N`, the predicted
classes of image N, uint8 `(height, width)`. Images are numbered as in the split, from 0. As in all
scores, `counts` leaves out the pixels that are not labelled. The sum of `counts` over the images
gives the IoU of each class: correct / (labelled + predicted - correct).
"""

import contextlib
import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np

from kseg.errors import UserError
from kseg.inference.image_scores import MeasuredImage


class PredictionsWriter:
    """Writes the file; a context manager. Each prediction is written when it is added.

    Args:
        path: The file. Every image of the split must be added once, in any order.
    """

    def __init__(self, path: Path):
        self._path = path
        self._names: dict[int, str] = {}
        self._counts: dict[int, np.ndarray] = {}

    def __enter__(self) -> "PredictionsWriter":
        self._file = zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED)
        return self

    def __exit__(self, error: type | None, value: object, trace: TracebackType | None) -> None:
        with self._file:
            if error is None:
                numbers = sorted(self._counts)
                self._write("names", np.array([self._names[number] for number in numbers]))
                self._write("counts", np.stack([self._counts[number] for number in numbers]))

    def add(self, measured: MeasuredImage) -> None:
        """Adds an image."""
        self._names[measured.number] = measured.name
        self._counts[measured.number] = pixel_counts(measured)
        self._write(f"prediction_{measured.number}", measured.prediction)

    def _write(self, name: str, array: np.ndarray) -> None:
        with self._file.open(f"{name}.npy", "w") as member:
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def pixel_counts(measured: MeasuredImage) -> np.ndarray:
    """Returns the labelled, predicted and correct pixels of each class, int64 `(3, classes)`."""
    matrix = measured.matrix
    return np.stack([matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)])


def iou(counts: np.ndarray) -> np.ndarray:
    """Computes the IoU of each class from summed counts, as `kseg.recipe.metrics.scores` does.

    Args:
        counts: Array `(..., 3, classes)`.

    Returns:
        Float array `(..., classes)`; NaN for classes without labelled pixels.
    """
    labelled, predicted, correct = np.moveaxis(np.asarray(counts), -2, 0)
    union = np.maximum(labelled + predicted - correct, 1)
    return np.where(labelled > 0, correct / union, np.nan)


class Predictions:
    """Reads the file. Predictions are read one by one; the file is opened once and stays open.

    Args:
        path: The file.

    Attributes:
        names: Names of the images.
        counts: See the docstring of the module.

    Raises:
        UserError: The file is missing or damaged.
    """

    def __init__(self, path: Path):
        self._path = path
        with self._damage_reported():
            self._file = np.load(path, allow_pickle=False)
        self.names = self._array("names").tolist()
        self.counts = self._array("counts")

    def prediction(self, number: int) -> np.ndarray:
        """Returns the predicted classes of an image, uint8 `(height, width)`."""
        return self._array(f"prediction_{number}")

    def _array(self, key):
        with self._damage_reported():
            return self._file[key]

    @contextlib.contextmanager
    def _damage_reported(self):
        try:
            yield
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self._path} cannot be read: {error}. `python -m kseg.evaluate --predictions` "
                "writes it again"
            ) from error
