"""ONNX models (extra `onnx`): converted by tf2onnx, run by onnxruntime and other runtimes."""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kseg.errors import missing_extra
from kseg.formats.classification import fixed_size

OPSET = 18  # Supported by the runtimes released since the end of 2022.


def require() -> None:
    """Raises `UserError` unless the converter is installed."""
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise missing_extra("onnx", "`--format=onnx`", error) from error


def convert(model: keras.Model, size: tuple[int, int], *, probabilities: bool = False) -> bytes:
    """Converts a network for single images of one size.

    Args:
        model: A network of `kseg.models`: RGB images in 0..255 in, logits of the same size out.
        size: The (height, width) of the images.
        probabilities: Whether the model returns `probabilities` in addition to `classes`.

    Returns:
        The contents of an `.onnx` file. Its input `images` is uint8 `[1, height, width, 3]`, RGB,
        and its outputs are those of the SavedModel.

    Raises:
        UserError: If the extra is not installed.
    """
    require()
    import tf2onnx

    # Otherwise tf2onnx copies the graph before each of its optimisations, in case that one fails:
    # 12 GB of memory for a ResNet50 instead of 7 GB.
    os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")
    classify = fixed_size(model, size, probabilities).classify
    converted, _ = tf2onnx.convert.from_function(
        classify,
        classify.input_signature,
        opset=OPSET,
        custom_op_handlers={"ResizeBilinear": (_convert_resize, [])},
    )
    return converted.SerializeToString()


def _convert_resize(graph: Any, node: Any, name: str, args: list) -> None:
    """Replaces TensorFlow's `ResizeBilinear` by an ONNX `Resize` with constant `sizes`.

    tf2onnx itself would write `scales` in float32. Multiplied by the size of the input and rounded
    down, they give a side that is one pixel too small for about 39 % of the sides from 33 to 1025.

    Args:
        graph: The graph under conversion, a `tf2onnx.graph.Graph`.
        node: The node to replace, a `tf2onnx.graph.Node`.
        name: The name of the node.
        args: Arguments of the handler; there are none.
    """
    batch, _, _, channels = graph.get_shape(node.input[0])
    height, width = node.inputs[1].get_tensor_value()
    align_corners = node.attr["align_corners"].i
    features = graph.make_node("Transpose", node.input[:1], {"perm": [0, 3, 1, 2]})
    sizes = graph.make_const(f"{name}/sizes", np.array([batch, channels, height, width], np.int64))
    resized = graph.make_node(
        "Resize",
        [features.output[0], "", "", sizes.output[0]],  # The inputs `roi` and `scales` are unused.
        {
            "mode": "linear",
            "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
        },
    )
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    graph.make_node(
        "Transpose",
        resized.output,
        {"perm": [0, 2, 3, 1]},
        name=name,
        outputs=node.output,
        shapes=shapes,
        dtypes=dtypes,
    )


def load(content: bytes) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Checks an ONNX model and loads it into onnxruntime, on the CPU.

    Args:
        content: The contents of an `.onnx` file.

    Returns:
        Function from an image, uint8 `[1, height, width, 3]`, to the outputs by name.

    Raises:
        ImportError: If onnx or onnxruntime is not installed.
        onnx.checker.ValidationError: If the model breaks a rule of the ONNX specification.
        onnx.shape_inference.InferenceError: If a declared shape differs from the inferred one.
    """
    import onnx
    import onnxruntime

    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(names, {"images": image}), strict=True))
