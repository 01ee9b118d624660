"""Label maps, overlays and probabilities of one image, in memory or straight into TIFFs."""

import contextlib
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.inference.predictor import Look, arg_max
from kseg.inference.tiles import Tiling, blended
from kseg.predict import geo
from kseg.visualization import label_maps


def draw(
    look: Look,
    image: np.ndarray,
    label_set: LabelSet,
    *,
    tiling: Tiling | None = None,
    alpha: float = 0.5,
    probabilities: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Predicts an image that lies in memory.

    Args:
        look: The network.
        image: uint8 (height, width, 3).
        label_set: Names and colours of its classes.
        tiling: How an image larger than a tile is cut. None: each is looked at as a whole.
        alpha: Weight of the class colours in the overlay.
        probabilities: Whether they are asked for.

    Returns:
        Class ids, uint8 (height, width); the overlay, uint8 (height, width, 3); probabilities,
        float16 (height, width, classes), or None.

    Raises:
        UserError: The image does not fit the protocol.
    """
    size = image.shape[:2]
    if tiling is None or tiling.fits(*size):
        if not probabilities:
            labels, found = look.classes(image), None
        else:
            scores = look.scores(image)
            labels, found = arg_max(scores), look.probabilities(scores).astype(np.float16)
        return labels, label_maps.overlay(image, labels, label_set.colours, alpha), found
    labels, mixed = np.empty(size, np.uint8), np.empty_like(image)
    found = np.empty((*size, look.channels), np.float16) if probabilities else None
    _draw_tiles(look, image, label_set, tiling, alpha, (labels, mixed, found))
    return labels, mixed, found


def draw_tiff(
    look: Look,
    path: str | os.PathLike,
    name: str,
    output_dir: str | os.PathLike,
    label_set: LabelSet,
    *,
    tiling: Tiling,
    alpha: float = 0.5,
    probabilities: bool = False,
) -> None:
    """Predicts a TIFF by tiles and writes TIFFs at its place, all of them or none.

    Args:
        look: The network.
        path: The image.
        name: Name of the outputs: `labels/NAME.tif`, uint8 with the classes' palette;
            `overlays/NAME.tif`; with `probabilities` `probabilities/NAME.tif`, a float32 band for
            each class. Where the image has no data labels have the ignore label, which is their
            nodata value, the overlay is as the image, and probabilities are nan, their nodata.
        output_dir: Folder of the outputs.
        label_set: Names and colours of the classes.
        tiling: How it is cut.
        alpha: Weight of the class colours in the overlay.
        probabilities: Whether they are asked for.

    Raises:
        UserError: The file cannot be read; the message has no path.
    """
    with geo.read(path) as image, contextlib.ExitStack() as outputs:

        def target(part, **options):
            file = Path(output_dir) / part / f"{name}.tif"
            return outputs.enter_context(geo.write(file, image, **options))

        canvases = [
            target("labels", colours=label_set.colours, nodata=label_set.ignore_label),
            target("overlays", bands=3),
            target(
                "probabilities", bands=look.channels, dtype="float32", names=label_set.names,
                nodata=np.nan,
            )
            if probabilities
            else None,
        ]  # fmt: skip
        _draw_tiles(look, image, label_set, tiling, alpha, canvases, image.is_nodata)


def save_probabilities(path: str | os.PathLike, probabilities: np.ndarray) -> None:
    """Writes float16 (height, width, classes) as the array `probabilities` of a .npz file."""
    with files.atomic_path(path) as partial:
        np.savez_compressed(partial, probabilities=probabilities)


def _draw_tiles(look, image, label_set, tiling, alpha, canvases, is_nodata=None) -> None:
    """Fills labels, overlay and probabilities (None: not wanted), part by part.

    `is_nodata` says of a place which pixels hold nothing; None: all hold something.
    """
    labels, mixed, probabilities = canvases
    size = image.shape[:2]
    parts = tqdm(
        blended(look.scores, image, tiling),
        total=tiling.count(*size),
        desc="tiles",
        unit="tile",
        leave=False,
    )
    for rows, columns, scores in parts:
        place = rows, columns
        nothing = np.False_ if is_nodata is None else is_nodata(place)
        classes = np.where(nothing, np.uint8(label_set.ignore_label), arg_max(scores))
        labels[place] = classes
        mixed[place] = label_maps.overlay(
            image[place], classes, label_set.colours, alpha, label_set.ignore_label
        )
        if probabilities is not None:
            found = look.probabilities(scores)
            probabilities[place] = np.where(nothing[..., np.newaxis], np.float32(np.nan), found)
