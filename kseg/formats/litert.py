"""LiteRT models for phones and small boards, converted by TensorFlow itself.

The input `images` is uint8 `[1, height, width, 3]`, RGB, and the outputs are those of the
SavedModel, whatever the precision of the computation. The package `ai-edge-litert` (extra `edge`)
runs the models.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from kseg.data import damage
from kseg.data.manifests import read_manifest
from kseg.data.pipeline import eval_dataset
from kseg.formats.classification import fixed_size
from kseg.inference.scorer import pad
from kseg.models import Segmenter

PRECISIONS = ("float32", "float16", "int8")
CALIBRATION_IMAGES = 100  # The default of `kseg.export`.


def convert(
    model: keras.Model,
    size: tuple[int, int],
    *,
    precision: str = "float32",
    calibration: Iterable[np.ndarray] = (),
    probabilities: bool = False,
) -> bytes:
    """Converts a network for single images of one size.

    Args:
        model: A network of `kseg.models`: RGB images in 0..255 in, logits of the same size out.
        size: The (height, width) of the images.
        precision: One of `PRECISIONS`. float16 halves the size of the file; processors without
            half-precision arithmetic compute it in float32. int8 computes in 8-bit integers with
            one scale for each output channel of a kernel.
        calibration: For int8: images, uint8 `[1, height, width, 3]`, that resemble those of the
            application. The range of every feature map is measured on them.
        probabilities: Whether the model returns `probabilities` in addition to `classes`.

    Returns:
        The contents of a `.tflite` file.

    Raises:
        ValueError: If `precision` is unknown, or if `calibration` is empty for int8.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {PRECISIONS}. Received: {precision!r}")
    calibration = list(calibration)
    if precision == "int8" and not calibration:
        raise ValueError("`calibration` must hold at least one image for int8. Received none")
    module = fixed_size(model, size, probabilities)
    # Converting the function directly would lose the names of the inputs and outputs.
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {"serving_default": module.classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([image] for image in calibration)
            # The second set is for the operations that are not quantised: the cast of the image to
            # float32 and the arg-max.
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]
        return converter.convert()


def load(
    content: bytes, num_threads: int | None = None
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Loads a LiteRT model into the runtime.

    Args:
        content: The contents of a `.tflite` file.
        num_threads: Number of threads of the runtime. Defaults to None, its own default.

    Returns:
        Function from an image, uint8 `[1, height, width, 3]`, to the outputs by name. It runs in
        `ai-edge-litert` if that is installed, otherwise in the interpreter of TensorFlow.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That of TensorFlow warns that it moves to ai-edge-litert.
        interpreter = Interpreter(model_content=content, num_threads=num_threads)
    runner = interpreter.get_signature_runner()
    return lambda image: runner(images=image)


def calibration_images(
    model: Segmenter, data_dir: str, split: str, size: tuple[int, int], count: int
) -> list[np.ndarray]:
    """Reads images at even distances from a split and crops or pads them to one size.

    Args:
        model: The network, which determines the colour of the padding.
        data_dir: Folder of the records.
        split: Name of the split.
        size: The (height, width) of the result. Images are cropped or padded at the bottom and on
            the right.
        count: Maximum number of images.

    Returns:
        List of uint8 arrays `[1, height, width, 3]`.

    Raises:
        UserError: If there is no such split, or a record of it is damaged.
    """
    step = max(read_manifest(data_dir, split).num_examples // count, 1)
    # As one worker of many, which decodes only its own images.
    chosen = eval_dataset(data_dir, split, num_workers=step).take(count)
    with damage.reported(data_dir, (split,)):
        return [crop_or_pad(model, image, size) for image, _ in chosen]


def crop_or_pad(model: Segmenter, images: tf.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Crops or pads uint8 images `[batch, height, width, 3]` at the bottom and on the right.

    The padding has the colour that clients are told: RGB 124, 117, 104 or grey 127.
    """
    cropped = tf.cast(images[:, : size[0], : size[1]], tf.float32)
    padded = pad(cropped, size, model.pad_value)
    return np.uint8(np.ceil(padded - 0.5))  # To the nearest integer; 127.5 becomes 127.
