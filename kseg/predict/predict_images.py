"""Predicts images and writes the results as pictures."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from kseg.data.datasets import VOC, LabelSet
from kseg.data.images import (
    MAX_PIXELS,
    MAX_TILED_PIXELS,
    is_tiff,
    read_image,
)
from kseg.errors import UserError
from kseg.inference.config import Protocol
from kseg.inference.predictor import Look
from kseg.inference.tiles import Tiling
from kseg.predict.outputs import draw, draw_tiff, save_probabilities
from kseg.visualization import image_files, label_maps, sheets

CELL_SIZE = 240
# Segmentation, trained on other data than VOC's own as well; comp5 is for VOC's alone.
SUBMISSION = Path("results", "VOC2012", "Segmentation", "comp6_test_cls")


def predict(
    model: keras.Model,
    label_set: LabelSet,
    images: dict[str, Path],
    output_dir: str | os.PathLike | None,
    *,
    protocol: Protocol | None = None,
    tiling: Tiling | None = None,
    probabilities: bool = False,
    alpha: float = 0.5,
    sheet_rows: int = 8,
    max_pixels: int | None = None,
    submission: str | os.PathLike | None = None,
) -> list[str]:
    """Writes the pictures of all images; one that cannot be read does not stop the others.

    Args:
        model: The network.
        label_set: Names and colours of its classes.
        images: Output name -> path, as `find_images` returns it.
        output_dir: Folder to write to; made if missing. Each file appears whole or not at all.
            None: only the submission.
        protocol: How the network looks at an image or a tile. By default once, at the whole.
        tiling: How images larger than a tile are cut. None: TIFFs as `Tiling.of(model)` says,
            others not.
        probabilities: Whether the class probabilities are written, too.
        alpha: Weight of the class colours in the overlays.
        sheet_rows: Images on `contact_sheet.png`; 0 for none.
        max_pixels: Size above which an image that is no TIFF is refused. None: 20 million, with
            `tiling` 170 million.
        submission: Folder of a submission to the PASCAL VOC server; None: none is written.

    Returns:
        One message per image that failed, with its path.

    Raises:
        UserError: A submission of other classes than VOC's, or of images that share a name; a
            protocol whose package is not installed, or that tiles do not fit.
    """
    if submission is not None:
        check_submission(label_set, images)
    look = Look(model, protocol)
    if tiling and protocol:
        protocol.check_fits(*tiling.tile)
    if max_pixels is None:
        max_pixels = MAX_TILED_PIXELS if tiling else MAX_PIXELS
    options = {"alpha": alpha, "probabilities": probabilities and output_dir is not None}
    failures, rows = [], []

    def file_of(part, name, suffix=".png"):
        return Path(output_dir) / part / f"{name}{suffix}"

    def draw_one(name, path):
        if is_tiff(path):
            if submission is not None:
                raise UserError("`--submission` takes no TIFF")
            cut = tiling or Tiling.of(model)
            draw_tiff(look, path, name, output_dir, label_set, tiling=cut, **options)
            return
        image = read_image(path, max_pixels)
        labels, mixed, found = draw(look, image, label_set, tiling=tiling, **options)
        if submission is not None:
            file = Path(submission) / SUBMISSION / f"{Path(name).name}.png"
            image_files.save_palette_png(file, labels, VOC.colours)
        if output_dir is None:
            return
        image_files.save_palette_png(file_of("labels", name), labels, label_set.colours)
        image_files.save_picture(file_of("overlays", name), mixed)
        if found is not None:
            save_probabilities(file_of("probabilities", name, ".npz"), found)
        if len(rows) < sheet_rows:
            prediction = label_maps.colourise(labels, label_set.colours)
            rows.append([sheets.fitted(one, CELL_SIZE) for one in (image, mixed, prediction)])

    for name, path in tqdm(images.items(), desc="predict", unit="image"):
        try:
            draw_one(name, path)
        except UserError as error:
            failures.append(f"{path}: {error}")
            tqdm.write(f"skipped {failures[-1]}")
    if output_dir is not None and len(failures) < len(images):
        legend = sheets.legend(label_set.names, label_set.colours)
        image_files.save_picture(Path(output_dir) / "legend.png", legend)
    if rows:
        save_sheet(
            Path(output_dir) / "contact_sheet.png", rows, label_set, ("overlay", "prediction")
        )
    return failures


def check_submission(label_set: LabelSet, images: dict[str, Path]) -> None:
    """Raises `UserError` unless classes and names are such as the PASCAL VOC server takes."""
    if label_set.names != VOC.names:
        raise UserError(
            "`--submission` needs a run on the 21 classes of PASCAL VOC, in their order. "
            f"Received: {', '.join(label_set.names)}"
        )
    paths: dict[str, Path] = {}
    for name, path in images.items():
        other = paths.setdefault(Path(name).name, path)
        if other != path:
            raise UserError(
                f"`--submission` has no folders: {other} and {path} would write the same file"
            )


def save_sheet(
    path: str | os.PathLike,
    rows: Sequence[Sequence[np.ndarray]],
    label_set: LabelSet,
    titles: Sequence[str],
) -> None:
    """Writes a contact sheet: the images in its first column, then one column per title."""
    sheet = sheets.contact_sheet(
        rows,
        ("image", *titles),
        names=label_set.names,
        colours=label_set.colours,
        cell_size=CELL_SIZE,
    )
    image_files.save_picture(path, sheet)
