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
`kseg.inference.tiles`: less memory, and with a network that sees further than `--overlap / 2`, or
the mean of the image, somewhat other scores. Protocol and CRF then apply to each tile by itself.

TIFFs (extra `geo`; three bands of uint8 or more, of which the first are red, green, blue) always
go by tiles, 1024,1024 by default, are read and written by window, and give TIFFs at the same place
on earth: labels with palette, overlay, and a float32 band of probabilities for each class. Where a
TIFF has no data (nodata value, mask, alpha of 0) labels are 255 and probabilities nan, and these
are the nodata values of the files. They are not on the contact sheet.

`--submission=DIR` writes the palette PNGs that the PASCAL VOC server takes, besides or instead, to
`DIR/results/VOC2012/Segmentation/comp6_test_cls/`; `tar -czf x.tgz -C DIR results` packs them.
"""

from absl import flags

from kseg import cli
from kseg.data.images import (
    MAX_PIXELS,
    MAX_TILED_PIXELS,
    find_images,
)
from kseg.errors import UserError
from kseg.inference import config as protocols
from kseg.inference.backend import leave_gpus_to_jax
from kseg.inference.tiles import Tiling
from kseg.predict.predict_images import predict
from kseg.runs.folder import RunFolder


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
    cli.require(values, "model_dir", "images")
    if not values.submission:
        cli.require(values, "output_dir")
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
    cli.run(main, define_flags)
