"""Draws what a trained run predicts: python -m kseg.predict --model_dir=runs/X --images=WHERE.

`--images` is a glob in quotes, a folder (all JPEG, PNG and TIFF files below it), or a `.txt` list
with a path on each line, relative to the list's folder. In `--output_dir`, for each image:

    labels/NAME.png         palette PNG of class ids at the image's own size
    overlays/NAME.png       the image with the classes laid over it
    probabilities/NAME.npz  with --probabilities: float16 (height, width, classes) under the key
                            `probabilities`

besides `legend.png` and, of the first few images, `contact_sheet.png`. NAME is the path of the
image below the folder, the part of the glob without wildcard, or the deepest folder that holds the
whole list, so images of one name in different folders stay apart.

By default the network looks once at the whole image; the flags of `kseg.evaluate` (`--scales`,
`--flip`, `--crf` ...) apply. `--tile=HEIGHT,WIDTH` cuts larger images into overlapping tiles, see
`kseg.evaluation.tiles`: less memory, and with a network that sees further than `--overlap / 2`, or
the mean of the image, somewhat other scores. Protocol and CRF then apply to each tile by itself.

TIFFs (extra `geo`; three bands of uint8 or more, of which the first are red, green, blue) always
go by tiles, 1024,1024 by default, are read and written by window, and give TIFFs at the same place
on earth: labels with palette, overlay, and a float32 band of probabilities for each class. Where a
TIFF has no data (nodata value, mask, alpha of 0) labels are 255 and probabilities nan, and these
are the nodata values of the files. They are not on the contact sheet.

`--submission=DIR` writes the palette PNGs that the PASCAL VOC server takes, besides or instead, to
`DIR/results/VOC2012/Segmentation/comp6_test_cls/`; `tar -czf x.tgz -C DIR results` packs them.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from absl import flags
from tqdm import tqdm

from kseg import pictures, program
from kseg.data.datasets import VOC, LabelSet
from kseg.errors import UserError
from kseg.evaluation import protocol as protocols
from kseg.evaluation.network import leave_gpus_to_jax
from kseg.evaluation.protocol import Protocol
from kseg.evaluation.tiles import Tiling
from kseg.prediction.images import (
    MAX_PIXELS,
    MAX_TILED_PIXELS,
    find_images,
    is_tiff,
    read_image,
)
from kseg.prediction.look import Look
from kseg.prediction.outputs import draw, draw_tiff, save_probabilities
from kseg.run_folder import RunFolder

CELL_SIZE = 240
# Segmentation, trained on other data than VOC's own as well; comp5 is for VOC's alone.
SUBMISSION = Path("results", "VOC2012", "Segmentation", "comp6_test_cls")


def predict(
    model: keras.Model,
    label_set: LabelSet,
    images: dict[str, Path],
    output_dir: str | os.PathLike | None,
    *,
    protocol: Protocol | None = None,
    tiling: Tiling | None = None,
    probabilities: bool = False,
    alpha: float = 0.5,
    sheet_rows: int = 8,
    max_pixels: int | None = None,
    submission: str | os.PathLike | None = None,
) -> list[str]:
    """Writes the pictures of all images; one that cannot be read does not stop the others.

    Args:
        model: The network.
        label_set: Names and colours of its classes.
        images: Output name -> path, as `find_images` returns it.
        output_dir: Folder to write to; made if missing. Each file appears whole or not at all.
            None: only the submission.
        protocol: How the network looks at an image or a tile. By default once, at the whole.
        tiling: How images larger than a tile are cut. None: TIFFs as `Tiling.of(model)` says,
            others not.
        probabilities: Whether the class probabilities are written, too.
        alpha: Weight of the class colours in the overlays.
        sheet_rows: Images on `contact_sheet.png`; 0 for none.
        max_pixels: Size above which an image that is no TIFF is refused. None: 20 million, with
            `tiling` 170 million.
        submission: Folder of a submission to the PASCAL VOC server; None: none is written.

    Returns:
        One message per image that failed, with its path.

    Raises:
        UserError: A submission of other classes than VOC's, or of images that share a name; a
            protocol whose package is not installed, or that tiles do not fit.
    """
    if submission is not None:
        check_submission(label_set, images)
    look = Look(model, protocol)
    if tiling and protocol:
        protocol.check_fits(*tiling.tile)
    if max_pixels is None:
        max_pixels = MAX_TILED_PIXELS if tiling else MAX_PIXELS
    options = {"alpha": alpha, "probabilities": probabilities and output_dir is not None}
    failures, rows = [], []

    def file_of(part, name, suffix=".png"):
        return Path(output_dir) / part / f"{name}{suffix}"

    def draw_one(name, path):
        if is_tiff(path):
            if submission is not None:
                raise UserError("`--submission` takes no TIFF")
            cut = tiling or Tiling.of(model)
            draw_tiff(look, path, name, output_dir, label_set, tiling=cut, **options)
            return
        image = read_image(path, max_pixels)
        labels, mixed, found = draw(look, image, label_set, tiling=tiling, **options)
        if submission is not None:
            file = Path(submission) / SUBMISSION / f"{Path(name).name}.png"
            pictures.save_palette_png(file, labels, VOC.colours)
        if output_dir is None:
            return
        pictures.save_palette_png(file_of("labels", name), labels, label_set.colours)
        pictures.save_picture(file_of("overlays", name), mixed)
        if found is not None:
            save_probabilities(file_of("probabilities", name, ".npz"), found)
        if len(rows) < sheet_rows:
            prediction = pictures.colourise(labels, label_set.colours)
            rows.append([pictures.fitted(one, CELL_SIZE) for one in (image, mixed, prediction)])

    for name, path in tqdm(images.items(), desc="predict", unit="image"):
        try:
            draw_one(name, path)
        except UserError as error:
            failures.append(f"{path}: {error}")
            tqdm.write(f"skipped {failures[-1]}")
    if output_dir is not None and len(failures) < len(images):
        legend = pictures.legend(label_set.names, label_set.colours)
        pictures.save_picture(Path(output_dir) / "legend.png", legend)
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
    flags.DEFINE_string(
        "images", "", "Glob in quotes (** means any folders), folder, or .txt list of images."
    )
    flags.DEFINE_string("output_dir", "", "Folder for labels/, overlays/, legend.png ...")
    flags.DEFINE_string("submission", "", "Folder of a submission to the PASCAL VOC server.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or the path of a checkpoint file.")
    flags.DEFINE_bool("probabilities", False, "Write the probabilities of the classes, too.")
    flags.DEFINE_list(
        "tile",
        [],
        "Height,width of the tiles of larger images, multiples of the network's stride, one number "
        "for both; empty: images are looked at whole, TIFFs by 1024,1024.",
    )
    flags.DEFINE_integer(
        "overlap",
        None,
        "Pixels by which a tile reaches into the part of each neighbour; unset: an eighth of it.",
    )
    flags.DEFINE_float("alpha", 0.5, "Weight of the class colours in overlays.", 0, 1)
    flags.DEFINE_integer("sheet_rows", 8, "Images on the contact sheet; 0: none.", 0)
    flags.DEFINE_integer(
        "max_pixels",
        None,
        f"Larger images are skipped, TIFFs aside; unset: {MAX_PIXELS}, or {MAX_TILED_PIXELS} with "
        "--tile.",
        1,
    )
    protocols.define_flags()


def main(values: flags.FlagValues) -> int:
    """Predicts every image that `--images` names; returns 1 if any could not be read."""
    program.require(values, "model_dir", "images")
    if not values.submission:
        program.require(values, "output_dir")
    leave_gpus_to_jax()
    protocol = protocols.from_flags(values)
    tile = protocols.numbers(values, "tile", int)
    if values.overlap is not None and not tile:
        raise UserError("`--overlap` goes with `--tile` alone")
    # Before the model: it takes seconds.
    images = find_images(values.images, values.output_dir or None)
    run = RunFolder(values.model_dir)
    model = run.load_model(values.checkpoint, protocol.applied_to(run.experiment))
    failures = predict(
        model,
        run.label_set,
        images,
        values.output_dir or None,
        protocol=protocol,
        tiling=Tiling.of(model, tile, values.overlap) if tile else None,
        probabilities=values.probabilities,
        alpha=values.alpha,
        sheet_rows=values.sheet_rows,
        max_pixels=values.max_pixels,
        submission=values.submission or None,
    )
    done = len(images) - len(failures)
    folders = " and ".join(filter(None, (values.output_dir, values.submission)))
    print(f"{done} of {len(images)} images predicted ({protocol}); pictures in {folders}")
    for failure in failures:
        print(f"skipped {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    program.run(main, define_flags)
