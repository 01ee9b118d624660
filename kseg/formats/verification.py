"""Checks that a converted file computes the same as the SavedModel of its network."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kseg.errors import UserError
from kseg.formats.classification import classify
from kseg.inference.frozen import freeze

# By precision: the largest fraction of the pixels whose class may differ, and the largest mean
# error of the probabilities. Rounding alone stays well below, a wrong conversion is far above.
MAX_DIFFERENCE = {"float32": 0.001, "float16": 0.05, "int8": 0.25}
# Two classes are tied if the probabilities that the SavedModel gives them differ by at most this.
TIE = 0.01


def example_image(size: tuple[int, int]) -> np.ndarray:
    """Returns an image of smooth random colours, uint8 `[1, height, width, 3]`.

    Args:
        size: The (height, width) of the image.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3))
    return np.uint8(tf.image.resize(coarse, size))


def verify(
    name: str,
    content: bytes,
    load: Callable[[bytes], Callable[[np.ndarray], dict[str, np.ndarray]]],
    model: keras.Model,
    image: np.ndarray,
    precision: str = "float32",
) -> float:
    """Compares a converted file with the SavedModel's function on one image.

    Args:
        name: Name of the file, for the messages.
        content: The contents of the file.
        load: `kseg.formats.litert.load` or `kseg.formats.onnx.load`.
        model: The network that was converted.
        image: uint8 `[1, height, width, 3]`.
        precision: A key of `MAX_DIFFERENCE`.

    Returns:
        The fraction of the pixels that get the same class, ties included.

    Raises:
        ImportError: If the runtime of the format is not installed.
        UserError: If the file cannot be loaded or run, or if its outputs are not those of the
            SavedModel up to the rounding of its precision.
    """
    try:
        outputs = load(content)(image)
    except ImportError:
        raise
    except Exception as error:  # Every runtime has exceptions of its own, without a common base.
        raise UserError(f"{name} does not run: {error}") from error
    expected = classify(freeze(model), tf.constant(image), probabilities=True)
    expected = {key: value.numpy() for key, value in expected.items()}
    for key, value in outputs.items():
        if (value.shape, value.dtype) != (expected[key].shape, expected[key].dtype):
            raise UserError(
                f"{name} is wrong: its output `{key}` must be as in the SavedModel, "
                f"{expected[key].dtype} {expected[key].shape}. "
                f"Received: {value.dtype} {value.shape}"
            )
    chosen = np.take_along_axis(
        expected["probabilities"], outputs["classes"][..., np.newaxis].astype(int), axis=-1
    )
    is_other = expected["probabilities"].max(axis=-1) - chosen[..., 0] > TIE
    differences = {"classes": np.mean(is_other)}
    if "probabilities" in outputs:
        errors = np.abs(outputs["probabilities"] - expected["probabilities"]).max(axis=-1)
        differences["probabilities"] = np.mean(errors)
    for key, difference in differences.items():
        # Written so that NaN fails as well.
        if not difference <= MAX_DIFFERENCE[precision]:
            raise UserError(
                f"{name} is wrong: its `{key}` differ from those of the SavedModel by "
                f"{difference:.1%} on a test image; {precision} may differ by at most "
                f"{MAX_DIFFERENCE[precision]:.1%}"
            )
    return 1 - differences["classes"]
