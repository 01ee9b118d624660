"""`Segmenter.predict_classes` and `Segmenter.overlay`: inference on NumPy images.

These are registered with `kseg.models.Segmenter` when kseg is imported, so that the networks, which
run on every backend of Keras, do not import TensorFlow and `kseg.visualization`.
"""

import dataclasses

import numpy as np

from kseg.data.datasets import voc_palette
from kseg.errors import UserError
from kseg.inference.compiled import compiles
from kseg.inference.config import InferenceConfig
from kseg.inference.predictor import Predictor, arg_max
from kseg.inference.tiles import Tiling, blended
from kseg.models import Segmenter
from kseg.visualization import label_maps

# Fields of `InferenceConfig` that make another network.
_OF_THE_NETWORK = {"eval_dilation_rates", "output_stride"}
_MAX_PREDICTORS = 8  # Each holds graphs of the network.


def predict_classes(
    segmenter: Segmenter,
    images: np.ndarray,
    *,
    tile: int | tuple[int, int] | None = None,
    overlap: int | None = None,
    **options,
) -> np.ndarray:
    """Predicts the class of every pixel of an image or a batch of images.

    Args:
        segmenter: The network.
        images: uint8 array (height, width, 3) or (batch, height, width, 3), RGB, of any size.
        tile: Height and width of tiles into which larger images are cut, or one number for both,
            see `kseg.inference.tiles`. Defaults to None: images are seen as a whole.
        overlap: Number of pixels by which a tile reaches into each neighbour. Defaults to None: an
            eighth of the tile.
        **options: Fields of `kseg.inference.config.InferenceConfig`: `scales`, `flip`, `average`,
            `tta`, `window_size`, `window_stride`, `eval_size`, `crf`, `jit_compile`. Other dilation
            rates and another output stride make another network: pass them to `kseg.load`.

    Returns:
        uint8 array (height, width) or (batch, height, width) of class ids.

    Raises:
        UserError: The images or an option are not as described above, the config needs a package
            that is not installed, or the network has more than 256 classes.
    """
    images = _checked(images)
    tiling = None
    if tile is not None:
        sides = (tile,) if np.ndim(tile) == 0 else tuple(tile)
        tiling = Tiling.of(segmenter, sides, overlap)
    elif overlap is not None:
        raise UserError(f"`overlap` needs `tile`. Received: overlap={overlap}")
    predictor = _predictor(segmenter, options, tiling and tiling.tile)
    batch = images if images.ndim == 4 else images[np.newaxis]
    classes = np.stack([_classes(predictor, image, tiling) for image in batch])
    return classes if images.ndim == 4 else classes[0]


def overlay(
    segmenter: Segmenter, image: np.ndarray, *, alpha: float = 0.5, **options
) -> np.ndarray:
    """Draws the predicted classes over an image.

    Args:
        segmenter: The network. Its `class_colours` are used if it has any, and otherwise those of
            Pascal VOC, which are defined for any number of classes.
        image: uint8 array (height, width, 3), RGB, of any size.
        alpha: Float in [0, 1]. Weight of the class colours.
        **options: As in `predict_classes`.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        UserError: The image or an option are not as described above.
    """
    if np.ndim(image) != 3:
        raise UserError(
            f"`image` must have the shape (height, width, 3). Received shape: {np.shape(image)}"
        )
    if not 0 <= alpha <= 1:
        raise UserError(f"`alpha` must be in [0, 1]. Received: {alpha}")
    colours = segmenter.class_colours or voc_palette(segmenter.num_classes)
    classes = predict_classes(segmenter, image, **options)
    return label_maps.overlay(image, classes, colours, alpha)


def _checked(images) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise UserError(
            "`images` must be a uint8 array (height, width, 3) or (batch, height, width, 3). "
            f"Received: {images.dtype} of shape {images.shape}"
        )
    if 0 in images.shape:
        raise UserError(f"`images` must hold pixels. Received shape: {images.shape}")
    return images


def _predictor(segmenter: Segmenter, options: dict, tile: tuple[int, int] | None) -> Predictor:
    names = {field.name for field in dataclasses.fields(InferenceConfig)} - _OF_THE_NETWORK
    unknown = sorted(set(options) - names)
    if unknown:
        raise UserError(
            f"Inference options must be among {', '.join(sorted(names))}, tile, overlap. "
            f"Received: {', '.join(unknown)}"
        )
    if segmenter.num_classes > 256:
        raise UserError(
            "`segmenter` must have at most 256 classes, since class ids are uint8. "
            f"Received: {segmenter.num_classes} classes"
        )
    config = InferenceConfig(**options)
    if not compiles(config, tile):
        tile = None  # One graph for images of any size.
    # Kept with the network, so that repeated calls do not trace it again. Keras would track an
    # attribute that is set in the usual way.
    known = vars(segmenter).setdefault("_predictors", {})
    if (config, tile) not in known:
        if len(known) == _MAX_PREDICTORS:
            del known[next(iter(known))]  # The oldest, or each new option would take memory.
        known[config, tile] = Predictor(segmenter, config, tile=tile)
    return known[config, tile]


def _classes(predictor: Predictor, image: np.ndarray, tiling: Tiling | None) -> np.ndarray:
    if tiling is None or tiling.fits(*image.shape[:2]):
        return predictor.classes(image)
    classes = np.empty(image.shape[:2], np.uint8)
    for rows, columns, scores in blended(predictor.scores, image, tiling):
        classes[rows, columns] = arg_max(scores)
    return classes
