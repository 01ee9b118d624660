"""The exported forms of a network, each loaded and ready to be called.

A form is its size on disk in bytes and a function of uint8 images `[1, height, width, 3]` that
returns class ids `[1, height, width]`.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kseg.benchmark import device
from kseg.formats import litert, onnx, saved_model
from kseg.formats.classification import classify
from kseg.visualization.progress import progress_bar

PLAIN = "SavedModel, variables and norms"
Form = tuple[int, Callable[[np.ndarray], np.ndarray]]


def load_all(
    model: keras.Model, size: tuple[int, int], calibration: list[np.ndarray], folder: Path
) -> dict[str, Form]:
    """Returns the forms that can run here by name; prints which extras are not installed.

    Args:
        model: A network of `kseg.models`.
        size: (height, width) of the images.
        calibration: uint8 images `[1, height, width, 3]` for int8.
        folder: Where the SavedModels are written; they must stay there while they are called.
    """
    return {
        **_saved_models(model, size, folder),
        **_litert(model, size, calibration),
        **_onnx(model, size),
    }


def _saved_models(model: keras.Model, size: tuple[int, int], folder: Path) -> dict[str, Form]:
    _write_plain(model, folder / "plain")
    saved_model.write(model, folder / "folded", probabilities=False, max_pixels=size[0] * size[1])
    return {PLAIN: _loaded(folder / "plain"), "SavedModel": _loaded(folder / "folded")}


def _litert(
    model: keras.Model, size: tuple[int, int], calibration: list[np.ndarray]
) -> dict[str, Form]:
    if find_spec("ai_edge_litert") is None:
        print('LiteRT is left out: it needs the extra "edge"')
        return {}
    forms = {}
    for precision in progress_bar(litert.PRECISIONS, desc="LiteRT", leave=False):
        content = litert.convert(model, size, precision=precision, calibration=calibration)
        run = litert.load(content, num_threads=device.cores())
        forms[f"LiteRT {precision}"] = _form(content, run)
    return forms


def _onnx(model: keras.Model, size: tuple[int, int]) -> dict[str, Form]:
    """One ONNX file in two runtimes."""
    if not all(map(find_spec, ("tf2onnx", "onnxruntime"))):
        print('ONNX is left out: it needs the extra "onnx"')
        return {}
    content = onnx.convert(model, size)
    forms = {"ONNX": _form(content, onnx.load(content))}
    try:
        import openvino
    except ImportError:
        print('ONNX by OpenVINO is left out: it needs the extra "openvino"')
        return forms
    core = openvino.Core()
    # By default OpenVINO computes in bfloat16 on processors that have it.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(content), "CPU", precision)
    return forms | {"ONNX by OpenVINO": _form(content, compiled)}


def _write_plain(model: keras.Model, folder: Path) -> None:
    """Writes the SavedModel that Keras makes of the unchanged network, for comparison."""

    def network(images):
        return model(images, training=False)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        name=saved_model.IMAGES_SIGNATURE,
        fn=lambda images: classify(network, images),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
    )
    archive.write_out(str(folder), verbose=False)


def _loaded(folder: Path) -> tuple[int, Callable]:
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures[saved_model.IMAGES_SIGNATURE]

    def call(image):
        # `loaded` owns the variables that the signature reads; the name keeps it alive.
        return loaded and signature(images=tf.constant(image))["classes"].numpy()

    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), call


def _form(content: bytes, run: Callable) -> Form:
    return len(content), lambda image: run(image)["classes"]
