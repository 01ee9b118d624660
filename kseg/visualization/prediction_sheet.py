"""Predictions of several runs side by side, as in KSAC Fig. 6, GCN Fig. 6 and Vortex Fig. 5."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.checked_images import BadInput
from kseg.data.datasets import LabelSet
from kseg.data.masks import CLASS_IDS, IDS, MaskRule
from kseg.data.names import find
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs.folder import RunFolder
from kseg.visualization.label_maps import colourise
from kseg.visualization.sheets import CELL_SIZE, contact_sheet, fitted

MAX_IMAGES = 50  # A sheet of 50 is up to 13,500 pixels high.


class PredictionSheet:
    """Figure of the predictions of several runs: one row per image, one column per run.

    The first column is the image; the last one is the ground truth, if masks are given. Classes
    have the colours of the label set, with a legend below the rows. A cell shows the whole image,
    scaled to a longer side of 240 pixels.

    Args:
        runs: The runs that will be added. All must have the same classes.
        images: Name of each image -> its file. Each is one row; at most 50.
        label_dir: Folder of masks, which have the names of the images, except the endings. If None
            or empty, there is no column of labels.
        read_image: Function that reads a file and returns a uint8 array (height, width, 3), RGB. It
            is called again for each run, so that the images need not all be in memory.
        masks_are: `"ids"` or `"colours"`, those of the classes. Defaults to None: what the masks of
            the first run were, see `kseg.data.masks.MaskRule`.

    Raises:
        UserError: If the runs have different classes, there are too many images, an image cannot
            be read, or a mask is missing, differs in size from its image or has ids that are not
            classes.

    Reference:
        Figure 6 of Huang et al., 2019 (KSAC); Figure 6 of Peng et al., 2017 (GCN); Figure 5 of Xie
        et al., 2018 (Vortex pooling); Figure 4 of Yang et al. (LKSPP).
    """

    name = "sheet"

    def __init__(
        self,
        runs: Sequence[RunFolder],
        images: Mapping[str, Path],
        label_dir: str | Path | None,
        read_image: Callable[[Path], np.ndarray],
        masks_are: str | None = None,
    ) -> None:
        self.notes: list[str] = []
        self._label_set = _common_label_set(runs)
        if len(images) > MAX_IMAGES:
            raise UserError(
                f"`--images` must match at most {MAX_IMAGES} files, one per row of the sheet. "
                f"Received: {len(images)}"
            )
        self._images, self._read_image = images, read_image
        rule = _mask_rule(runs[0], masks_are)
        image_cells, label_cells = [], []
        for name, path in images.items():
            image = read_image(path)
            image_cells.append(fitted(image, CELL_SIZE))
            if label_dir:
                mask = find(Path(label_dir), f"{name}.png")
                ids = read_mask(mask, self._label_set, image.shape[:2], rule)
                label_cells.append(self._cell(ids))
        self._columns = [("image", image_cells)]
        self._labels = [("label", label_cells)] if label_dir else []

    def add(self, name: str, run: RunFolder, model: Segmenter) -> None:
        """Adds the column of a run."""
        images = map(self._read_image, self._images.values())
        column = [self._cell(model.predict_classes(image)) for image in images]
        self._columns.append((name, column))

    def picture(self) -> Image.Image:
        """Returns the sheet of the runs added so far."""
        titles, columns = zip(*self._columns, *self._labels, strict=True)
        return contact_sheet(
            list(zip(*columns, strict=True)),
            titles,
            names=self._label_set.names,
            colours=self._label_set.colours,
            row_titles=list(self._images),
        )

    def _cell(self, labels: np.ndarray) -> np.ndarray:
        return fitted(colourise(labels, self._label_set.colours), CELL_SIZE)


def read_mask(
    path: Path, label_set: LabelSet, size: tuple[int, int], rule: MaskRule = CLASS_IDS
) -> np.ndarray:
    """Reads a mask.

    Args:
        path: The file of the mask.
        label_set: The allowed classes; the ignore label is allowed, too.
        size: Required height and width.
        rule: What the mask means. Defaults to class ids.

    Returns:
        uint8 array (height, width).

    Raises:
        UserError: If there is no such file, it is not a mask, or it has another size or ids that
            are not classes. The message names the file.
    """
    try:
        labels = rule(path, label_set)
    except BadInput as error:
        raise UserError(f"`--labels`: {error}") from error
    if labels.shape != tuple(size):
        raise UserError(
            f"`--labels`: a mask must have the size of its image, {size[1]}x{size[0]}. "
            f"Received: {path} of size {labels.shape[1]}x{labels.shape[0]}"
        )
    return labels


def _mask_rule(run: RunFolder, masks_are: str | None) -> MaskRule:
    if masks_are == IDS:
        return MaskRule(trusts_palettes=True)
    if masks_are in (None, run.mask_rule.masks_are):
        return run.mask_rule
    return MaskRule.of_colours(run.label_set)


def _common_label_set(runs: Sequence[RunFolder]) -> LabelSet:
    first, *others = runs
    for run in others:
        try:
            run.check_labels(first.label_set, first.path)
        except UserError as error:
            raise UserError(f"`--images` needs runs with the same classes: {error}") from error
    return first.label_set
