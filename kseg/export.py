"""Exports the network of a run as a SavedModel, a LiteRT model or an ONNX model.

    python -m kseg.export --model_dir=runs/X --export_dir=DIR

By default this writes a SavedModel to `DIR/<version>/`, where the version is one above the highest
in the folder, as TensorFlow Serving expects. It runs in any process that has TensorFlow; kseg is
not needed. It has two signatures:

    serving_default  images   uint8 (batch, height, width, 3), RGB, any size
    encoded          encoded  string (batch), the contents of JPEG or PNG files of one size

Both return `classes`, uint8 (batch, height, width): the class ids at the size of the image. With
`--probabilities` they also return `probabilities`, float32 (batch, height, width, num_classes).

Decoding and normalisation are part of the graph, and the decoder is that of training and
prediction. Weights are constants, and batch normalisations are folded into the convolutions.
`assets.extra/labels.json` holds the names and colours of the classes, and
`assets.extra/tf_serving_warmup_requests` the requests that TensorFlow Serving runs before it makes
the version available.

`--format=weights` writes the weights without an optimizer, with a model card, into one new folder,
which `kseg.load` and `keras.saving.load_model` read and which can be put on a hub; see
`kseg.formats.weights_folder`.

`--format=litert` (for phones and small boards) and `--format=onnx` (extra `onnx`) write one file
instead, for single images of `--image_size`, with `labels.json` next to it. The file is loaded and
compared with the SavedModel on a test image before it is put in place. The caller pads smaller
images at the bottom and on the right with the colour that the network normalises to zero: RGB 124,
117, 104 for the ResNets of Keras and ResNet50-GCN, and grey 127 for all other backbones.

    python -m kseg.export --model_dir=runs/X --export_dir=DIR --format=onnx --image_size=360,480
    python -m kseg.export --model_dir=runs/X --export_dir=DIR --format=litert
"""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from kseg import cli, files
from kseg.data.datasets import LabelSet
from kseg.data.images import MAX_PIXELS
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.formats import (
    labels_file,
    litert,
    onnx,
    saved_model,
    verification,
    warm_up,
    weights_folder,
)
from kseg.inference.backend import require_tensorflow
from kseg.models import Segmenter
from kseg.runs.folder import RunFolder, is_run

FORMATS = ("saved_model", "litert", "onnx", "weights")
LESS_MEMORY = (
    "Less is needed with a smaller `--image_size` (litert, onnx) and fewer `--calibration_images` "
    "(int8)"
)
# A flag -> another flag, and the values of it with which the first one has an effect.
_NEEDS = {
    "probabilities": ("format", ("saved_model", "litert", "onnx")),
    "max_pixels": ("format", ("saved_model",)),
    "image_size": ("format", ("litert", "onnx")),
    "licence": ("format", ("weights",)),
    "data_dir": ("export_precision", ("int8",)),
    "split": ("export_precision", ("int8",)),
    "calibration_images": ("export_precision", ("int8",)),
}


def export(
    model: Segmenter,
    label_set: LabelSet,
    export_dir: str | os.PathLike,
    *,
    probabilities: bool = False,
    max_pixels: int = MAX_PIXELS,
    scene_bands: SceneBands | None = None,
) -> Path:
    """Writes a network as the next version of a SavedModel. A failed export leaves nothing behind.

    Args:
        model: A network of `kseg.models`: RGB images in 0..255 in, logits of the same size out.
        label_set: The names and colours of its classes.
        export_dir: Folder of all versions, which is created if it is missing.
        probabilities: Whether the signatures return `probabilities` in addition to `classes`.
        max_pixels: Maximum number of pixels in a request, summed over its images. Encoded images
            are checked by their headers.
        scene_bands: How images are made from scenes, for `labels.json`. Defaults to None: they are
            not.

    Returns:
        The folder of the new version.

    Raises:
        UserError: If `export_dir` is a file, or if `label_set` has another number of classes than
            the model.
    """
    export_dir = _prepare(model, label_set, export_dir)
    version = export_dir / str(saved_model.highest_version(export_dir) + 1)
    # Its name is not a number, so that a server that watches the folder does not load it too early.
    files.remove_partials(export_dir)
    partial = files.partial_path(version)
    try:
        saved_model.write(model, partial, probabilities=probabilities, max_pixels=max_pixels)
        warm_up.write(partial, max_pixels)
        labels_file.write(partial / "assets.extra", label_set, scene_bands)
        os.rename(partial, version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def export_file(
    model: Segmenter,
    label_set: LabelSet,
    export_dir: str | os.PathLike,
    *,
    file_format: str,
    size: tuple[int, int],
    precision: str = "float32",
    calibration: Sequence[np.ndarray] = (),
    probabilities: bool = False,
    scene_bands: SceneBands | None = None,
) -> tuple[Path, float | None]:
    """Writes a network as a LiteRT or ONNX model, with `labels.json` next to it.

    The file is put in place only once it has been loaded and compared with the function of the
    SavedModel on a test image: the first image of `calibration`, otherwise smooth random colours.

    Args:
        model: A network of `kseg.models`: RGB images in 0..255 in, logits of the same size out.
        label_set: The names and colours of its classes.
        export_dir: Folder, which is created if it is missing. A file of the same name is replaced.
        file_format: "litert" or "onnx".
        size: The (height, width) of the images.
        precision: For LiteRT: see `kseg.formats.litert.convert`.
        calibration: For LiteRT in int8: see `kseg.formats.litert.convert`.
        probabilities: Whether the model returns `probabilities` in addition to `classes`.
        scene_bands: As for `export`.

    Returns:
        The path of the model, and the fraction of the pixels of the test image that get the class
        of the SavedModel; None if the runtime of the format is not installed.

    Raises:
        UserError: As `export`; or if the file does not load or computes something else than the
            SavedModel.
    """
    export_dir = _prepare(model, label_set, export_dir)
    name = f"model_{size[0]}x{size[1]}"
    if file_format == "onnx":
        name, load = f"{name}.onnx", onnx.load
        content = onnx.convert(model, size, probabilities=probabilities)
    else:
        name, load = f"{name}_{precision}.tflite", litert.load
        content = litert.convert(
            model,
            size,
            precision=precision,
            calibration=calibration,
            probabilities=probabilities,
        )
    image = calibration[0] if calibration else verification.example_image(size)
    with files.atomic_path(export_dir / name) as partial:
        partial.write_bytes(content)
        try:
            agreement = verification.verify(
                name, partial.read_bytes(), load, model, image, precision
            )
        except ImportError:
            agreement = None
    labels_file.write(export_dir, label_set, scene_bands)
    return export_dir / name, agreement


def _prepare(model: Segmenter, label_set: LabelSet, export_dir: str | os.PathLike) -> Path:
    """Checks the arguments that both forms of export share, and creates the folder."""
    if model.num_classes != label_set.num_classes:
        raise UserError(
            f"`label_set` must name the {model.num_classes} classes of the model. "
            f"Received: {label_set.num_classes} names"
        )
    export_dir = Path(export_dir)
    if export_dir.exists() and not export_dir.is_dir():
        raise UserError(f"`--export_dir` must be a folder. Received the file: {export_dir}")
    if is_run(export_dir):  # Its `labels.json` would be replaced.
        raise UserError(f"`--export_dir` must not be the folder of a run. Received: {export_dir}")
    export_dir.mkdir(parents=True, exist_ok=True)
    return export_dir


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("model_dir", "", "Folder of a run, as kseg.train writes it.")
    flags.DEFINE_string("export_dir", "", "Folder of the export; a SavedModel is its next version.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or the path of a checkpoint file.")
    flags.DEFINE_enum("format", FORMATS[0], FORMATS, "The format to write.")
    flags.DEFINE_string("licence", "", "weights: licence of the weights, for the model card.")
    flags.DEFINE_bool(
        "probabilities", False, "Whether the model also returns the probabilities of the classes."
    )
    flags.DEFINE_integer(
        "max_pixels", MAX_PIXELS, "saved_model: maximum number of pixels in a request.", 1
    )
    flags.DEFINE_list(
        "image_size",
        ["513"],
        "litert, onnx: height,width of the images; a single number means a square.",
    )
    flags.DEFINE_enum(
        "export_precision",
        "float32",
        litert.PRECISIONS,
        "litert: the precision of weights and computation.",
    )
    cli.define_alias("precision", "export_precision")
    flags.DEFINE_string(
        "data_dir", "", "int8: folder of the records to calibrate with; empty: that of the run."
    )
    flags.DEFINE_string(
        "split",
        "",
        "int8: the split to calibrate with; empty: the (first) training split of the run.",
    )
    flags.DEFINE_integer(
        "calibration_images",
        litert.CALIBRATION_IMAGES,
        "int8: maximum number of images to calibrate with.",
        1,
    )


def main(values: flags.FlagValues) -> None:
    """Exports one run."""
    cli.require(values, "model_dir", "export_dir")
    if values.export_precision != "float32" and values.format != "litert":
        raise UserError(
            "`--export_precision` must be float32 unless `--format` is litert. "
            f"Received: --format={values.format} --export_precision={values.export_precision}"
        )
    for name, (other, fitting) in _NEEDS.items():
        if values[name].present and values[other].value not in fitting:
            raise UserError(
                f"`--{name}` must be given with `--{other}={' or '.join(fitting)}` only. "
                f"Received: --{other}={values[other].value}"
            )
    if values.format == "weights":
        return _export_weights(values)
    require_tensorflow("kseg.export")
    size = _image_size(values)
    if values.format == "onnx":
        onnx.require()  # Before the model is loaded, which takes seconds.
    run = RunFolder(values.model_dir)
    model = run.load_model(checkpoint=values.checkpoint)
    writing = cli.writing({"export_dir": values.export_dir})
    if values.format == "saved_model":
        with writing:
            version = export(
                model,
                run.label_set,
                values.export_dir,
                probabilities=values.probabilities,
                max_pixels=values.max_pixels,
                scene_bands=run.scene_bands,
            )
        print(f"SavedModel written: {version}")
        print(f"To inspect it: saved_model_cli show --dir {shlex.quote(str(version))} --all")
        return
    calibration = []
    if values.export_precision == "int8":
        calibration = litert.calibration_images(
            model,
            run.data_dir(values.data_dir),
            values.split or run.experiment.train_split[0],
            size,
            values.calibration_images,
        )
    with writing:
        path, agreement = export_file(
            model,
            run.label_set,
            values.export_dir,
            file_format=values.format,
            size=size,
            precision=values.export_precision,
            calibration=calibration,
            probabilities=values.probabilities,
            scene_bands=run.scene_bands,
        )
    if agreement is None:
        print("The file was not compared with the SavedModel: onnxruntime is not installed.")
    else:
        print(f"Same class as the SavedModel at {agreement:.2%} of the pixels of a test image.")
    print(f"model written: {path}, {path.stat().st_size / 1e6:.1f} MB")


def _export_weights(values: flags.FlagValues) -> None:
    with cli.writing({"export_dir": values.export_dir}):
        folder = weights_folder.write(
            values.export_dir,
            RunFolder(values.model_dir),
            checkpoint=values.checkpoint,
            licence=values.licence,
        )
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"weights written: {folder}, {megabytes:.1f} MB; kseg.load({str(folder)!r}) reads them")


def _image_size(values: flags.FlagValues) -> tuple[int, int]:
    sides = cli.numbers(values, "image_size", int)
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise UserError(
            "`--image_size` must be one or two integers >= 1 joined by a comma. "
            f"Received: {','.join(values.image_size)}"
        )
    return sides[0], sides[-1]


if __name__ == "__main__":
    cli.run(main, define_flags, less_memory=LESS_MEMORY)
