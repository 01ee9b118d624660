"""What several runs predict, side by side: KSAC Fig. 6, GCN Fig. 6, Vortex Fig. 5, LKSPP Fig. 4."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kseg.data.datasets import LabelSet
from kseg.data.image_files import BadInput
from kseg.data.masks import check_ids, read_index_mask
from kseg.errors import UserError
from kseg.runs.folder import RunFolder
from kseg.visualization import cells, pictures

CELL_SIZE = 240
MAX_IMAGES = 50  # A sheet of more has over 13,000 rows of pixels.


class Sheet:
    """One row a photograph; columns image, each run, and the label where masks are given.

    Classes have the colours of the label set, which stand below the rows. A cell shows the whole
    photograph, its longer side scaled to 240 pixels.

    Args:
        runs: The runs that will be added. All must have the same classes.
        images: Name of a photograph -> its file; a row each, at most 50.
        label_dir: Folder of masks `NAME.png`, palette indices or grey values of class ids; None
            or empty: no column of labels.
        read_image: Function from a file to its pixels, a uint8 array (height, width, 3), RGB.
            It is called again for each run, so that the photographs need not all be held.
        classifier: Gives, for a network, the function from uint8 images `[batch, height, width,
            3]` to uint8 class ids `[batch, height, width]`: `kseg.inference.scorer.classifier`.

    Raises:
        UserError: Runs of different classes, too many photographs, one that cannot be read, or a
            mask that is missing, of another size than its photograph, or with other ids than the
            classes.
    """

    name = "sheet"

    def __init__(
        self,
        runs: Sequence[RunFolder],
        images: Mapping[str, Path],
        label_dir: str | Path | None,
        read_image: Callable[[Path], np.ndarray],
        classifier: Callable[[keras.Model], Callable],
    ):
        self.notes: list[str] = []
        self._label_set = _common_label_set(runs)
        if len(images) > MAX_IMAGES:
            raise UserError(
                f"`--images` must match at most {MAX_IMAGES} files, each a row of the sheet. "
                f"Received: {len(images)}"
            )
        self._images, self._read_image, self._classifier = images, read_image, classifier
        cells_of_images, masks = [], []
        for name, path in images.items():
            image = read_image(path)
            cells_of_images.append(pictures.fitted(image, CELL_SIZE))
            if label_dir:
                mask = Path(label_dir) / f"{name}.png"
                masks.append(self._cell(read_mask(mask, self._label_set, image.shape[:2])))
        self._columns = [("image", cells_of_images)]
        self._labels = [("label", masks)] if label_dir else []

    def add(self, run: RunFolder, model: keras.Model) -> None:
        """Adds the column of a run."""
        classify = self._classifier(model)
        column = []
        for path in self._images.values():
            image = self._read_image(path)
            column.append(self._cell(classify(image[np.newaxis])[0].numpy()))
        self._columns.append((cells.title_of(run), column))

    def picture(self) -> Image.Image:
        """The sheet of the runs that were added."""
        titles, columns = zip(*self._columns, *self._labels, strict=True)
        return pictures.contact_sheet(
            list(zip(*columns, strict=True)),
            titles,
            names=self._label_set.names,
            colours=self._label_set.colours,
            row_titles=list(self._images),
            cell_size=CELL_SIZE,
        )

    def _cell(self, labels: np.ndarray) -> np.ndarray:
        coloured = pictures.colourise(labels, self._label_set.colours)
        return pictures.fitted(coloured, CELL_SIZE)


def read_mask(path: Path, label_set: LabelSet, size: tuple[int, int]) -> np.ndarray:
    """Reads a mask of class ids.

    Args:
        path: PNG of palette indices or grey values.
        label_set: The classes that it may hold, beside the ignore label.
        size: Height and width that it must have.

    Returns:
        uint8 array (height, width).

    Raises:
        UserError: No such file, no mask, another size, or other ids; the message has the path.
    """
    try:
        labels = read_index_mask(path, label_set, check_palette=False)
        check_ids(path, labels, label_set)
    except BadInput as error:
        raise UserError(f"`--labels`: {error}") from error
    if labels.shape != tuple(size):
        raise UserError(
            f"`--labels`: a mask must have the size of its image, {size[1]}x{size[0]}. {path} has "
            f"{labels.shape[1]}x{labels.shape[0]}"
        )
    return labels


def _common_label_set(runs: Sequence[RunFolder]) -> LabelSet:
    first, *others = runs
    for run in others:
        try:
            run.check_labels(first.label_set, first.path)
        except UserError as error:
            raise UserError(f"`--images` needs runs on the same classes: {error}") from error
    return first.label_set
