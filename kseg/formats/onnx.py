"""ONNX models (extra `onnx`: tf2onnx converts, onnxruntime runs)."""

import keras

from kseg.errors import missing_extra
from kseg.formats.frozen import fixed_size

OPSET = 18  # Resize with align_corners needs 11; runtimes since the end of 2022 know 18.


def require() -> None:
    """Raises `UserError` unless the converter is installed."""
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise missing_extra("onnx", "`--format=onnx`", error) from error


def convert(model: keras.Model, size: tuple[int, int], *, probabilities: bool = False) -> bytes:
    """Converts a network for images of one size.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        size: (height, width) of the images.
        probabilities: Whether the model gives `probabilities` besides `classes`.

    Returns:
        The content of an `.onnx` file: input `images`, uint8 `[1, height, width, 3]`, RGB, and the
        answers of the SavedModel.

    Raises:
        UserError: The extra is not installed.
    """
    require()
    import tf2onnx

    classify = fixed_size(model, size, probabilities).classify
    converted, _ = tf2onnx.convert.from_function(classify, classify.input_signature, opset=OPSET)
    return converted.SerializeToString()
