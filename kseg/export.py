"""Exports a trained run: python -m kseg.export --model_dir=runs/X --export_dir=DIR.

Writes the SavedModel `DIR/<version>/`, the version one above the highest there, as TensorFlow
Serving expects. It answers in any process that has TensorFlow, without kseg.
Both signatures give `classes`, uint8 (batch, height, width): class ids at the size of the image,
in uint8 as label maps are everywhere here (a label set has at most 255 classes).

    serving_default  images   uint8 (batch, height, width, 3), RGB, any size
    encoded          encoded  string (batch), the bytes of JPEG or PNG files of one size

Decoding and normalisation are inside, with the decoder of training and prediction. The names and
colours of the classes stand in `assets.extra/labels.json`, where loaders let it be.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags

from kseg import program
from kseg.data.datasets import LabelSet
from kseg.data.records import decode_image
from kseg.errors import UserError
from kseg.evaluation.inference import classifier
from kseg.run_folder import RunFolder

IMAGES_SIGNATURE = "serving_default"
ENCODED_SIGNATURE = "encoded"
LABELS_FILE = "assets.extra/labels.json"


def decode_batch(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG or PNG files of one size; works in graph mode.

    Args:
        encoded: string (batch), the bytes of the files; at least one.

    Returns:
        uint8 (batch, height, width, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: no file, bytes that are no image, or two sizes.
    """
    with tf.control_dependencies(
        [tf.debugging.assert_positive(tf.size(encoded), "`encoded` must hold at least one image.")]
    ):
        # Decoded once more in the loop: a per cent of what the network costs.
        size = tf.shape(decode_image(encoded[0]))[:2]

    def decode(contents):
        image = decode_image(contents)
        same = tf.debugging.assert_equal(
            tf.shape(image)[:2],
            size,
            "The images of one batch must have one size (height, width). Send images of "
            "different sizes one by one, or resize them before.",
        )
        with tf.control_dependencies([same]):
            return tf.identity(image)

    return tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec((None, None, 3), tf.uint8))


def export(model: keras.Model, label_set: LabelSet, export_dir: str | os.PathLike) -> Path:
    """Writes a model as a SavedModel, whole or not at all.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        label_set: Names and colours of its classes.
        export_dir: Folder of all versions; made if missing.

    Returns:
        Folder of the version written.

    Raises:
        UserError: `export_dir` is a file, or `label_set` is not as large as the model's output.
    """
    if model.output.shape[-1] != label_set.num_classes:
        raise UserError(
            f"`label_set` must name the {model.output.shape[-1]} classes of the model. "
            f"Received: {label_set.num_classes} names"
        )
    export_dir = Path(export_dir)
    if export_dir.exists() and not export_dir.is_dir():
        raise UserError(f"`--export_dir` must be a folder. Received the file: {export_dir}")
    export_dir.mkdir(parents=True, exist_ok=True)
    version = export_dir / str(_highest_version(export_dir) + 1)
    # No number, so that a server that watches the folder does not load it half written.
    partial = export_dir / f".partial-{os.getpid()}"
    try:
        _write_saved_model(model, partial)
        labels = partial / LABELS_FILE
        labels.parent.mkdir(exist_ok=True)
        labels.write_text(json.dumps(dataclasses.asdict(label_set), indent=1) + "\n", "utf-8")
        os.rename(partial, version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def _highest_version(export_dir: Path) -> int:
    numbers = [int(item.name) for item in export_dir.iterdir() if item.name.isdecimal()]
    return max(numbers, default=0)


def _write_saved_model(model: keras.Model, path: Path) -> None:
    classify = classifier(model)

    def classify_images(images):
        return {"classes": classify(images)}

    def classify_encoded(encoded):
        return {"classes": classify(decode_batch(encoded))}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        name=IMAGES_SIGNATURE,
        fn=classify_images,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
    )
    archive.add_endpoint(
        name=ENCODED_SIGNATURE,
        fn=classify_encoded,
        input_signature=[tf.TensorSpec((None,), tf.string, name="encoded")],
    )
    archive.write_out(str(path), verbose=False)


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("model_dir", "", "Folder of a run, as kseg.train wrote it.")
    flags.DEFINE_string("export_dir", "", "Folder of the versions; the next number is written.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or the path of a checkpoint file.")


def main(values: flags.FlagValues) -> None:
    """Exports one run."""
    program.require(values, "model_dir", "export_dir")
    run = RunFolder(values.model_dir)
    version = export(run.load_model(checkpoint=values.checkpoint), run.label_set, values.export_dir)
    print(f"SavedModel written: {version}")
    print(f"look at it: saved_model_cli show --dir {version} --all")


if __name__ == "__main__":
    program.run(main, define_flags)
