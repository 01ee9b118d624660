"""Exports a trained run: python -m kseg.export --model_dir=runs/X --export_dir=DIR.

By default it writes the SavedModel `DIR/<version>/`, the version one above the highest there, as
TensorFlow Serving expects. It answers in any process that has TensorFlow, without kseg.
Both signatures give `classes`, uint8 (batch, height, width): class ids at the size of the image,
in uint8 as label maps are everywhere here (a label set has at most 255 classes); by
`--probabilities` also `probabilities`, float32 (batch, height, width, classes).

    serving_default  images   uint8 (batch, height, width, 3), RGB, any size
    encoded          encoded  string (batch), the bytes of JPEG or PNG files of one size

Decoding and normalisation are inside, with the decoder of training and prediction. Weights are
constants, batch normalisations folded into the convolutions. The names and colours of the classes
stand in `assets.extra/labels.json`, where loaders let it be, and requests to warm up with in
`assets.extra/tf_serving_warmup_requests`.

`--format=litert` and `--format=onnx` write one file for images of `--image_size` instead, and
`labels.json` beside it.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import keras
from absl import flags

from kseg import cli, files
from kseg.data.datasets import LabelSet
from kseg.data.images import MAX_PIXELS
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.formats import litert, onnx, saved_model, warm_up
from kseg.inference.backend import require_tensorflow
from kseg.runs.folder import RunFolder

LABELS_FILE = "labels.json"
FORMATS = ("saved_model", "litert", "onnx")


def export(
    model: keras.Model,
    label_set: LabelSet,
    export_dir: str | os.PathLike,
    *,
    probabilities: bool = False,
    max_pixels: int = MAX_PIXELS,
    scene_bands: SceneBands | None = None,
) -> Path:
    """Writes a model as a SavedModel, whole or not at all.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        label_set: Names and colours of its classes.
        export_dir: Folder of all versions; made if missing.
        probabilities: Whether the signatures give `probabilities` besides `classes`.
        max_pixels: Most pixels of a request, all its images together; encoded images are judged
            by their headers.
        scene_bands: How the images of the run were made from scenes. They are written to
            `labels.json`, so that a client can prepare a scene. Defaults to None: they were not.

    Returns:
        Folder of the version written.

    Raises:
        UserError: `export_dir` is a file, or `label_set` is not as large as the model's output.
    """
    export_dir = _prepared(model, label_set, export_dir)
    version = export_dir / str(_highest_version(export_dir) + 1)
    # No number, so that a server that watches the folder does not load it half written.
    partial = export_dir / f".partial-{os.getpid()}"
    try:
        saved_model.write(model, partial, probabilities=probabilities, max_pixels=max_pixels)
        warm_up.write(partial, max_pixels)
        _write_labels(partial / "assets.extra", label_set, scene_bands)
        os.rename(partial, version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def export_file(
    model: keras.Model,
    label_set: LabelSet,
    export_dir: str | os.PathLike,
    name: str,
    content: bytes,
    *,
    scene_bands: SceneBands | None = None,
) -> Path:
    """Writes a converted model and `labels.json` beside it; returns the path of the model.

    Args:
        model: The network that was converted.
        label_set: Names and colours of its classes.
        export_dir: Folder; made if missing.
        name: Of the file; one of that name is replaced.
        content: What `litert.convert` or `onnx.convert` returned.
        scene_bands: As for `export`.

    Raises:
        UserError: As `export`.
    """
    export_dir = _prepared(model, label_set, export_dir)
    with files.atomic_path(export_dir / name) as partial:
        partial.write_bytes(content)
    _write_labels(export_dir, label_set, scene_bands)
    return export_dir / name


def _prepared(model: keras.Model, label_set: LabelSet, export_dir: str | os.PathLike) -> Path:
    if model.output.shape[-1] != label_set.num_classes:
        raise UserError(
            f"`label_set` must name the {model.output.shape[-1]} classes of the model. "
            f"Received: {label_set.num_classes} names"
        )
    export_dir = Path(export_dir)
    if export_dir.exists() and not export_dir.is_dir():
        raise UserError(f"`--export_dir` must be a folder. Received the file: {export_dir}")
    export_dir.mkdir(parents=True, exist_ok=True)
    return export_dir


def _highest_version(export_dir: Path) -> int:
    numbers = [int(item.name) for item in export_dir.iterdir() if item.name.isdecimal()]
    return max(numbers, default=0)


def _write_labels(folder: Path, label_set: LabelSet, scene_bands: SceneBands | None) -> None:
    folder.mkdir(exist_ok=True)
    content = dataclasses.asdict(label_set)
    if scene_bands is not None:
        content["scene_bands"] = scene_bands.to_json()
    files.write_text(folder / LABELS_FILE, json.dumps(content, indent=1) + "\n")


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("model_dir", "", "Folder of a run, as kseg.train wrote it.")
    flags.DEFINE_string("export_dir", "", "Folder of the versions; the next number is written.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or the path of a checkpoint file.")
    flags.DEFINE_enum("format", FORMATS[0], FORMATS, "What is written.")
    flags.DEFINE_bool("probabilities", False, "Answer with probabilities besides class ids.")
    flags.DEFINE_integer("max_pixels", MAX_PIXELS, "saved_model: most pixels of a request.", 1)
    flags.DEFINE_list("image_size", ["513"], "litert, onnx: height,width; one number: a square.")
    flags.DEFINE_enum("precision", "float32", litert.PRECISIONS, "litert: numbers inside.")
    flags.DEFINE_string("data_dir", "", "int8: records to calibrate with; empty: the run's.")
    flags.DEFINE_string("split", "", "int8: split of them; empty: the run's (first) of training.")
    flags.DEFINE_integer("calibration_images", 100, "int8: images to calibrate with.", 1)


def main(values: flags.FlagValues) -> None:
    """Exports one run."""
    cli.require(values, "model_dir", "export_dir")
    require_tensorflow("kseg.export")
    if values.precision != "float32" and values.format != "litert":
        raise UserError(
            f"`--precision` must be float32 where `--format` is not litert. "
            f"Received: --format={values.format} --precision={values.precision}"
        )
    size = _image_size(values.image_size)
    if values.format == "onnx":
        onnx.require()  # Before the model: it takes seconds.
    run = RunFolder(values.model_dir)
    model = run.load_model(checkpoint=values.checkpoint)
    if values.format == "saved_model":
        version = export(
            model,
            run.label_set,
            values.export_dir,
            probabilities=values.probabilities,
            max_pixels=values.max_pixels,
            scene_bands=run.scene_bands,
        )
        print(f"SavedModel written: {version}")
        print(f"look at it: saved_model_cli show --dir {version} --all")
        return
    name = f"model_{size[0]}x{size[1]}"
    if values.format == "onnx":
        name += ".onnx"
        content = onnx.convert(model, size, probabilities=values.probabilities)
    else:
        name += f"_{values.precision}.tflite"
        calibration = _calibration(values, run, model, size) if values.precision == "int8" else ()
        content = litert.convert(
            model,
            size,
            precision=values.precision,
            calibration=calibration,
            probabilities=values.probabilities,
        )
    path = export_file(
        model, run.label_set, values.export_dir, name, content, scene_bands=run.scene_bands
    )
    print(f"model written: {path}, {len(content) / 1e6:.1f} MB")


def _image_size(texts: list[str]) -> tuple[int, int]:
    sides = [int(text) for text in texts if text.isdecimal() and int(text)]
    if not texts or len(sides) != len(texts) or len(sides) > 2:
        raise UserError(
            "`--image_size` must be one or two integers >= 1 joined by a comma. "
            f"Received: {','.join(texts)}"
        )
    return (sides[0], sides[-1])


def _calibration(values: flags.FlagValues, run: RunFolder, model: keras.Model, size) -> list:
    return litert.calibration_images(
        model,
        values.data_dir or run.experiment.data_dir,
        values.split or run.experiment.train_split[0],
        size,
        values.calibration_images,
    )


if __name__ == "__main__":
    cli.run(main, define_flags)
