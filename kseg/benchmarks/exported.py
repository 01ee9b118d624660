"""What each exported form of a network weighs, and how long it takes for one image."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kseg.benchmarks import models, timing
from kseg.errors import UserError
from kseg.exporting import litert, onnx, saved_model
from kseg.exporting.frozen import answer

SHAPE = (1, 513, 513)
NETWORKS = models.GROUPS["contexts"]
DEFAULT = ("aspp", "ksac")
PLAIN = "SavedModel, variables and norms"
_LEGEND = """MB     of all files
ms     one image of uint8 to class ids, median (lower..upper quartile), the forms taking turns
ratio  of the medians over the first row's"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Network and form.
        megabytes: Size on disk, 10^6 bytes.
        ms: Quartiles (lower, median, upper) of one image.
        ratio: Median over that of the SavedModel that is neither frozen nor folded.
    """

    name: str
    megabytes: float
    ms: tuple[float, float, float]
    ratio: float


def run(
    repetitions: int = 9,
    output: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
) -> list[Row]:
    """Exports networks with random weights in every form, prints a table and returns its rows.

    Forms whose extra (`edge`, `onnx`) is not installed are left out, and named.

    Args:
        repetitions: Times that each form is measured, after one that is not.
        output: `.csv` or `.json` file to write the rows to as well; none if empty.
        only: Context modules, on MobileNetV2; ASPP and KSAC if empty.
        shape: (1, height, width) of the image; (1, 513, 513) if empty.

    Raises:
        UserError: A context module is not known, or the shape not as described.
    """
    timing.check_output(output)
    for name in only:
        if name not in NETWORKS:
            names = ", ".join(NETWORKS)
            raise UserError(f"`--only` must hold names of {names}. Received: {name!r}")
    if shape and (len(shape) != 3 or shape[0] != 1):
        raise UserError(f"`--shape` must be 1,height,width. Received: {shape!r}")
    print(_LEGEND)
    rows = []
    for name in only or DEFAULT:
        found = _measure(models.build(NETWORKS[name]), shape or SHAPE, repetitions)
        print(f"\n{name:<32}{'MB':>8}{'ms':>26}{'ratio':>8}")
        for row in found:
            print(
                f"{row.name:<32}{row.megabytes:>8.1f}{timing.spread(row.ms):>26}{row.ratio:>8.2f}"
            )
        rows += [dataclasses.replace(row, name=f"{name}: {row.name}") for row in found]
    if output:
        timing.write(output, rows)
    return rows


def _measure(model: keras.Model, shape: tuple[int, ...], repetitions: int) -> list[Row]:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        forms = _forms(model, image, Path(folder))
        calls = {name: functools.partial(call, image) for name, (_, call) in forms.items()}
        times = timing.interleaved_ms(calls, repetitions)
    first = times[PLAIN][1]
    return [
        Row(name, size / 1e6, times[name], times[name][1] / first)
        for name, (size, _) in forms.items()
    ]


def _forms(model: keras.Model, image: np.ndarray, folder: Path) -> dict[str, tuple[int, Callable]]:
    """Name -> size in bytes, and a function of the image, for each form that can run here."""
    _write_plain(model, folder / "plain")
    saved_model.write(model, folder / "folded", probabilities=False, max_pixels=image.size)
    forms = {PLAIN: _loaded(folder / "plain"), "SavedModel": _loaded(folder / "folded")}
    size = image.shape[1:3]
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        print('LiteRT: needs the extra "edge" to run')
    else:
        for precision in tqdm(litert.PRECISIONS, desc="LiteRT", leave=False):
            # Calibrated on noise, which decides the answers and not the time that they take.
            content = litert.convert(model, size, precision=precision, calibration=[image])
            interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
            runner = interpreter.get_signature_runner()
            forms[f"LiteRT {precision}"] = (len(content), _by_name(runner))
    try:
        onnx.require()
        import onnxruntime
    except (ImportError, UserError):
        print('ONNX: needs the extra "onnx"')
    else:
        content = onnx.convert(model, size)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        forms["ONNX"] = (len(content), lambda pixels: session.run(None, {"images": pixels}))
    return forms


def _write_plain(model: keras.Model, folder: Path) -> None:
    """The SavedModel that Keras writes of the network as it is, to compare with."""

    def network(images):
        return model(images, training=False)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        name=saved_model.IMAGES_SIGNATURE,
        fn=lambda images: answer(network, images),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
    )
    archive.write_out(str(folder), verbose=False)


def _loaded(folder: Path) -> tuple[int, Callable]:
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures[saved_model.IMAGES_SIGNATURE]

    def call(image):
        # `loaded` is named: it owns the variables that the signature reads.
        return loaded and signature(images=tf.constant(image))["classes"].numpy()

    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), call


def _by_name(runner: Callable) -> Callable:
    return lambda image: runner(images=image)
