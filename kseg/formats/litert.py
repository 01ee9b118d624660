"""LiteRT models, for phones and small boards; TensorFlow itself converts, nothing else is needed.

Input `images` is uint8 `[1, height, width, 3]`, RGB, and the answers are those of the SavedModel,
whatever the numbers inside. `ai-edge-litert` (extra `edge`) runs them.
"""

import tempfile
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from kseg.data.pipeline import eval_dataset
from kseg.data.records import read_manifest
from kseg.formats.frozen import fixed_size
from kseg.inference.scorer import pad

PRECISIONS = ("float32", "float16", "int8")


def convert(
    model: keras.Model,
    size: tuple[int, int],
    *,
    precision: str = "float32",
    calibration: Iterable[np.ndarray] = (),
    probabilities: bool = False,
) -> bytes:
    """Converts a network for images of one size.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        size: (height, width) of the images.
        precision: One of `PRECISIONS`. float16 halves the file and computes in float32 where the
            processor has no half floats; int8 computes in 8-bit integers, kernels scaled by
            channel.
        calibration: For int8: images, uint8 `[1, height, width, 3]`, such as the network will
            see. The range of every map is measured on them.
        probabilities: Whether the model gives `probabilities` besides `classes`.

    Returns:
        The content of a `.tflite` file.

    Raises:
        ValueError: `precision` is not known, or int8 has no image to calibrate with.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {PRECISIONS}. Received: {precision!r}")
    calibration = list(calibration)
    if precision == "int8" and not calibration:
        raise ValueError("`calibration` must hold at least one image for int8. Received none")
    module = fixed_size(model, size, probabilities)
    # By way of a SavedModel: a bare function loses the names of inputs and outputs.
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {"serving_default": module.classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([image] for image in calibration)
            # The cast of the image to numbers and the arg-max stay what they are.
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]
        return converter.convert()


def calibration_images(
    model: keras.Model, data_dir: str, split: str, size: tuple[int, int], count: int
) -> list[np.ndarray]:
    """Images of a split, evenly over its records, cut or padded below and to the right to a size.

    Args:
        model: The network, which knows the colour of padding.
        data_dir: Folder of the shards.
        split: Name of the split.
        size: (height, width).
        count: Most images to take.

    Returns:
        uint8 arrays `[1, height, width, 3]`.

    Raises:
        UserError: The split is not there.
    """
    step = max(read_manifest(data_dir, split).num_examples // count, 1)
    chosen = eval_dataset(data_dir, split).shard(step, 0).take(count)
    return [fitted(model, image, size) for image, _ in chosen]


def fitted(model: keras.Model, images: tf.Tensor, size: tuple[int, int]) -> np.ndarray:
    """uint8 images `[batch, height, width, 3]`, cut or padded below and to the right to a size."""
    cut = tf.cast(images[:, : size[0], : size[1]], tf.float32)
    return np.uint8(pad(cut, size, model.pad_value))
