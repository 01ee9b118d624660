"""Label map, overlay and probabilities of one image, in memory or written directly to TIFFs."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.data.scene_bands import PICTURE, SceneBands
from kseg.data.scenes import Scene, open_scene
from kseg.inference.predictor import Predictor, arg_max
from kseg.inference.tiles import Tiling, blended
from kseg.predict import geo
from kseg.visualization import label_maps
from kseg.visualization.progress import progress_bar


class Output(NamedTuple):
    """The results for one image: arrays, or TIFFs that are written window by window.

    Attributes:
        labels: Class ids, uint8 (height, width).
        overlay: The image with the class colours, uint8 (height, width, 3).
        probabilities: Probabilities (height, width, classes), or None if they are not wanted.
    """

    labels: np.ndarray | geo.GeoCanvas
    overlay: np.ndarray | geo.GeoCanvas
    probabilities: np.ndarray | geo.GeoCanvas | None


def predict_array(
    predictor: Predictor,
    image: np.ndarray,
    label_set: LabelSet,
    *,
    tiling: Tiling | None = None,
    alpha: float = 0.5,
    probabilities: bool = False,
) -> Output:
    """Predicts an image in memory.

    Args:
        predictor: The network.
        image: uint8 (height, width, 3).
        label_set: Names and colours of its classes.
        tiling: How an image larger than a tile is cut. None: it is seen as a whole.
        alpha: Weight of the class colours in the overlay.
        probabilities: Whether float16 probabilities are wanted.

    Raises:
        UserError: The image does not fit the inference config.
    """
    size = image.shape[:2]
    if tiling is None or tiling.fits(*size):
        if not probabilities:
            labels, class_probabilities = predictor.classes(image), None
        else:
            scores = predictor.scores(image)
            labels = arg_max(scores)
            class_probabilities = predictor.probabilities(scores).astype(np.float16)
        overlay = label_maps.overlay(image, labels, label_set.colours, alpha)
        return Output(labels, overlay, class_probabilities)
    output = Output(
        np.empty(size, np.uint8),
        np.empty_like(image),
        np.empty((*size, predictor.num_classes), np.float16) if probabilities else None,
    )
    _predict_tiles(predictor, image, label_set, tiling, alpha, output)
    return output


def predict_tiff(
    predictor: Predictor,
    path: str | os.PathLike,
    name: str,
    output_dir: str | os.PathLike,
    label_set: LabelSet,
    *,
    tiling: Tiling,
    alpha: float = 0.5,
    probabilities: bool = False,
    bands: SceneBands | None = None,
) -> Path:
    """Predicts a TIFF tile by tile and writes TIFFs with its georeferencing, all of them or none.

    Args:
        predictor: The network.
        path: The image.
        name: Name of the results: `labels/NAME.tif`, uint8 with the palette of the classes,
            `overlays/NAME.tif` and, with `probabilities`, `probabilities/NAME.tif`, a float32 band
            for each class. Where the image has no data, labels are the ignore label, which is their
            nodata value, the overlay is the image, and probabilities are NaN, their nodata value.
        output_dir: Folder for the results.
        label_set: Names and colours of the classes.
        tiling: How the image is cut into tiles.
        alpha: Weight of the class colours in the overlay.
        probabilities: Whether probabilities are wanted.
        bands: The bands of the file that the network sees. None: the first three, of uint8.

    Returns:
        The path of the labels.

    Raises:
        UserError: The file cannot be read. The message does not contain the path.
    """

    def file_of(part: str) -> Path:
        return Path(output_dir) / part / f"{name}.tif"

    with open_scene(path, bands or PICTURE) as image, contextlib.ExitStack() as opened:

        def create(part: str, **options) -> geo.GeoCanvas:
            return opened.enter_context(geo.write(file_of(part), image, **options))

        output = Output(
            create("labels", colours=label_set.colours, nodata=label_set.ignore_label),
            create("overlays", bands=3),
            create(
                "probabilities",
                bands=predictor.num_classes,
                dtype="float32",
                names=label_set.names,
                nodata=np.nan,
            )
            if probabilities
            else None,
        )
        _predict_tiles(predictor, image, label_set, tiling, alpha, output, image.is_nodata)
    return file_of("labels")


def save_probabilities(path: str | os.PathLike, probabilities: np.ndarray) -> None:
    """Writes float16 (height, width, classes) as the array `probabilities` of an .npz file."""
    with files.atomic_path(path) as partial:
        np.savez_compressed(partial, probabilities=probabilities)


def _predict_tiles(
    predictor: Predictor,
    image: np.ndarray | Scene,
    label_set: LabelSet,
    tiling: Tiling,
    alpha: float,
    output: Output,
    is_nodata: Callable[[tuple[slice, slice]], np.ndarray] | None = None,
) -> None:
    """Fills the output part by part.

    `is_nodata` returns, for a part of the image, which of its pixels have no data. None: all have.
    """
    parts = progress_bar(
        blended(predictor.scores, image, tiling),
        total=tiling.count(*image.shape[:2]),
        desc="tiles",
        unit="tile",
        leave=False,
    )
    for rows, columns, scores in parts:
        place = rows, columns
        nodata = np.False_ if is_nodata is None else is_nodata(place)
        classes = np.where(nodata, np.uint8(label_set.ignore_label), arg_max(scores))
        output.labels[place] = classes
        output.overlay[place] = label_maps.overlay(
            image[place], classes, label_set.colours, alpha, label_set.ignore_label
        )
        if output.probabilities is not None:
            probabilities = predictor.probabilities(scores)
            output.probabilities[place] = np.where(
                nodata[..., np.newaxis], np.float32(np.nan), probabilities
            )
