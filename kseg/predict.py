"""Draws what a trained run predicts: python -m kseg.predict --model_dir=runs/X --images='GLOB'.

For each image it writes `labels/NAME.png`, a palette PNG of class ids at the image's own size, and
`overlays/NAME.png`, the image with the classes laid over it; for the first few also a contact
sheet. NAME is the path of the image below the part of the glob that holds no wildcard, so images
of one name in different folders stay apart.

`--submission=DIR` writes the palette PNGs that the PASCAL VOC server takes, besides or instead, to
`DIR/results/VOC2012/Segmentation/comp6_test_cls/`; `tar -czf x.tgz -C DIR results` packs them.
"""

import glob
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image
from tqdm import tqdm

from kseg import pictures, program
from kseg.data.datasets import VOC, LabelSet
from kseg.data.records import decode_image
from kseg.errors import UserError
from kseg.evaluation.network import in_graph, leave_gpus_to_jax
from kseg.run_folder import RunFolder

CELL_SIZE = 240
# Segmentation, trained on other data than VOC's own as well; comp5 is for VOC's alone.
SUBMISSION = Path("results", "VOC2012", "Segmentation", "comp6_test_cls")
MAX_PIXELS = 20_000_000  # About 3.5 GB of logits and their resize at 21 classes.


def classifier(model: keras.Model) -> tf.types.experimental.PolymorphicFunction:
    """The graph from images to class ids that prediction, export and training's pictures share.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.

    Returns:
        `tf.function` of uint8 images `[batch, height, width, 3]`, RGB, any size; gives uint8 class
        ids `[batch, height, width]`, the lower id where two classes tie.
    """

    network = in_graph(model)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def classify(images):
        logits = network(tf.cast(images, tf.float32))
        return tf.cast(tf.argmax(logits, axis=-1), tf.uint8)

    return classify


def read_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a JPEG or PNG file with the decoder that training used.

    Args:
        path: File to read.
        max_pixels: Larger images are refused by their header, before any pixel is decoded.

    Returns:
        uint8 array (height, width, 3), RGB.

    Raises:
        UserError: If the file is no whole JPEG or PNG, or too large; the message has no path.
    """
    try:
        contents = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Judged below.
            with Image.open(io.BytesIO(contents)) as header:
                kind, (width, height) = header.format, header.size
    except Image.DecompressionBombError as error:
        raise UserError(f"images must hold at most {max_pixels} pixels. {error}") from error
    except Exception as error:  # Damaged headers make Pillow raise errors of many types.
        raise UserError("not a picture that can be read") from error
    # MPO is what several cameras write: a JPEG with more pictures behind it.
    if kind not in ("JPEG", "MPO", "PNG"):
        raise UserError(f"images must be JPEG or PNG. Received: {kind}")
    if width * height > max_pixels:
        raise UserError(
            f"images must hold at most {max_pixels} pixels (`--max_pixels`). "
            f"Received: {width} x {height}"
        )
    try:
        return decode_image(tf.constant(contents)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"damaged picture: {error.message.splitlines()[0]}") from error


def find_images(pattern: str, output_dir: str | os.PathLike | None) -> dict[str, Path]:
    """Returns the images that a glob names, by the name that their outputs get.

    Args:
        pattern: Glob; `**` stands for any number of folders. Files under the outputs of an earlier
            run in `output_dir` are left out.
        output_dir: Where the outputs will go; None where there are none of these.

    Returns:
        Name without suffix, relative to the part of the glob without wildcard -> path; sorted.

    Raises:
        UserError: If nothing matches, or two images would write the same outputs.
    """
    parts = ("labels", "overlays") if output_dir else ()
    outputs = [Path(output_dir).resolve() / part for part in parts]
    paths = [
        path
        for path in map(Path, sorted(glob.glob(pattern, recursive=True)))
        if path.is_file() and not any(path.resolve().is_relative_to(one) for one in outputs)
    ]
    if not paths:
        raise UserError(f"`--images` must match at least one file. No match for: {pattern}")
    root = _fixed_folder(pattern)
    images: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in images:
            raise UserError(
                f"two images would write the same outputs ({name}.png): {images[name]} and "
                f"{path}. Narrow `--images` to one of them"
            )
        images[name] = path
    return images


def predict(
    model: keras.Model,
    label_set: LabelSet,
    images: dict[str, Path],
    output_dir: str | os.PathLike | None,
    *,
    alpha: float = 0.5,
    sheet_rows: int = 8,
    max_pixels: int = MAX_PIXELS,
    submission: str | os.PathLike | None = None,
) -> list[str]:
    """Writes the pictures of all images; one that cannot be read does not stop the others.

    Args:
        model: The network.
        label_set: Names and colours of its classes.
        images: Output name -> path, as `find_images` returns it.
        output_dir: Folder to write to; made if missing. Each file appears whole or not at all.
            None: no masks, overlays and contact sheet.
        alpha: Weight of the class colours in the overlays.
        sheet_rows: Images on `contact_sheet.png`; 0 for none.
        max_pixels: Size above which an image is refused.
        submission: Folder of a submission to the PASCAL VOC server; None: none is written.

    Returns:
        One message per image that failed, with its path.

    Raises:
        UserError: A submission of other classes than VOC's, or of images that share a name.
    """
    if submission is not None:
        check_submission(label_set, images)
    classify = classifier(model)
    failures, rows = [], []
    for name, path in tqdm(images.items(), desc="predict", unit="image"):
        try:
            image = read_image(path, max_pixels)
        except UserError as error:
            failures.append(f"{path}: {error}")
            tqdm.write(f"skipped {failures[-1]}")
            continue
        labels = classify(image[np.newaxis])[0].numpy()
        if submission is not None:
            file = Path(submission) / SUBMISSION / f"{Path(name).name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pictures.save_palette_png(file, labels, VOC.colours)
        if output_dir is None:
            continue
        mixed = pictures.overlay(image, labels, label_set.colours, alpha)
        files = [Path(output_dir) / part / f"{name}.png" for part in ("labels", "overlays")]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        pictures.save_palette_png(files[0], labels, label_set.colours)
        pictures.save_picture(files[1], mixed)
        if len(rows) < sheet_rows:
            prediction = pictures.colourise(labels, label_set.colours)
            rows.append([pictures.fitted(one, CELL_SIZE) for one in (image, mixed, prediction)])
    if rows:
        save_sheet(
            Path(output_dir) / "contact_sheet.png", rows, label_set, ("overlay", "prediction")
        )
    return failures


def check_submission(label_set: LabelSet, images: dict[str, Path]) -> None:
    """Raises `UserError` unless classes and names are such as the PASCAL VOC server takes."""
    if label_set.names != VOC.names:
        raise UserError(
            "`--submission` needs a run on the 21 classes of PASCAL VOC, in their order. "
            f"Received: {', '.join(label_set.names)}"
        )
    paths: dict[str, Path] = {}
    for name, path in images.items():
        other = paths.setdefault(Path(name).name, path)
        if other != path:
            raise UserError(
                f"`--submission` has no folders: {other} and {path} would write the same file"
            )


def save_sheet(
    path: str | os.PathLike,
    rows: Sequence[Sequence[np.ndarray]],
    label_set: LabelSet,
    titles: Sequence[str],
) -> None:
    """Writes a contact sheet: the images in its first column, then one column per title."""
    sheet = pictures.contact_sheet(
        rows,
        ("image", *titles),
        names=label_set.names,
        colours=label_set.colours,
        cell_size=CELL_SIZE,
    )
    pictures.save_picture(path, sheet)


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("model_dir", "", "Folder of a run, as kseg.train wrote it.")
    flags.DEFINE_string("images", "", "Glob of JPEG or PNG files, in quotes; ** means any folders.")
    flags.DEFINE_string("output_dir", "", "Folder for labels/, overlays/ and contact_sheet.png.")
    flags.DEFINE_string("submission", "", "Folder of a submission to the PASCAL VOC server.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or the path of a checkpoint file.")
    flags.DEFINE_float("alpha", 0.5, "Weight of the class colours in overlays.", 0, 1)
    flags.DEFINE_integer("sheet_rows", 8, "Images on the contact sheet; 0: none.", 0)
    flags.DEFINE_integer("max_pixels", MAX_PIXELS, "Larger images are skipped.", 1)


def main(values: flags.FlagValues) -> int:
    """Predicts every image of a glob; returns 1 if any could not be read."""
    program.require(values, "model_dir", "images")
    if not values.submission:
        program.require(values, "output_dir")
    leave_gpus_to_jax()
    # Before the model: it takes seconds.
    images = find_images(values.images, values.output_dir or None)
    run = RunFolder(values.model_dir)
    model = run.load_model(checkpoint=values.checkpoint)
    failures = predict(
        model,
        run.label_set,
        images,
        values.output_dir or None,
        alpha=values.alpha,
        sheet_rows=values.sheet_rows,
        max_pixels=values.max_pixels,
        submission=values.submission or None,
    )
    done = len(images) - len(failures)
    folders = " and ".join(filter(None, (values.output_dir, values.submission)))
    print(f"{done} of {len(images)} images predicted; pictures in {folders}")
    for failure in failures:
        print(f"skipped {failure}")
    return 1 if failures else 0


def _fixed_folder(pattern: str) -> Path:
    """Returns the folders of a glob before its first wildcard."""
    parts = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


if __name__ == "__main__":
    program.run(main, define_flags)
