"""Predicts images with a trained run: python -m kseg.predict --model_dir=runs/X --images=WHERE.

`--images` is a glob in quotes, a folder (all files below it that have the ending of an image), or a
`.txt` list with a path on each line, relative to the folder of the list. For each image it writes
to `--output_dir`:

    labels/NAME.png         palette PNG of class ids, of the size of the image
    overlays/NAME.png       the image with the class colours drawn over it
    probabilities/NAME.npz  with --probabilities: float16 (height, width, classes) under the key
                            `probabilities`

and for all of them `legend.png` and, with the first few images, `contact_sheet.png`. NAME is the
path of the image below the folder, below the part of the glob without wildcards, or below the
deepest folder that holds the whole list, so images of one name in different folders do not collide.

By default the network sees the whole image once; the inference flags of `kseg.evaluate` apply
(`--scales`, `--flip`, `--crf`, ...). `--tile=HEIGHT,WIDTH` cuts larger images into overlapping
tiles, see `kseg.inference.tiles`. This takes less memory, but the scores of a network that sees
further than `--overlap / 2`, or the mean of the image, differ somewhat from those for the whole
image. The inference flags then apply to each tile separately.

TIFFs (extra `geo`; at least three bands of uint8, of which the first are red, green and blue, or
the bands that the run was trained on, if its records are from `tfrecords_tools.build_scenes`) are
always cut into tiles, 1024,1024 by default. They are read and written window by window, and the
results are TIFFs with the same georeferencing: labels with a palette, the overlay, and a float32
band of probabilities for each class. Where a TIFF has no data (nodata value, mask, or alpha of 0)
labels are 255 and probabilities NaN, which are the nodata values of the results. TIFFs are left out
of the contact sheet.

`--vectors=out.gpkg` also writes the regions of each class in TIFFs as polygons in the projection of
the scene, with the fields `class`, `class_id` and `area` (square metres, or pixels without a
projection). Each scene is a layer; a `.geojson` holds one scene. `--min_area` leaves out specks,
`--vector_classes` all other classes.

`--submission=DIR` writes the palette PNGs that the server of PASCAL VOC accepts to
`DIR/results/VOC2012/Segmentation/comp6_test_cls/`; `tar -czf x.tgz -C DIR results` packs them.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data.datasets import LabelSet
from kseg.data.images import MAX_PIXELS, MAX_TILED_PIXELS, find_images, is_tiff
from kseg.errors import UserError
from kseg.inference import config as configs
from kseg.inference.backend import prepare_backend
from kseg.inference.tiles import Tiling
from kseg.predict.predict_images import predict
from kseg.predict.vectors import VectorFile
from kseg.runs.folder import RunFolder

OUTPUTS = ("output_dir", "submission", "vectors")
TILES = "Tiles"
VECTORS = "Polygons"
LESS_MEMORY = (
    "Less is needed with a smaller `--tile`, smaller `--scales`, or `--window_size`, and without "
    "`--probabilities`"
)


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("model_dir", "", "Folder of a run of kseg.train.")
    flags.DEFINE_string(
        "images", "", "Glob in quotes (** matches any folders), folder, or .txt list of images."
    )
    flags.DEFINE_string("output_dir", "", "Folder for labels/, overlays/, legend.png, ...")
    flags.DEFINE_string("submission", "", "Folder of a submission to the server of PASCAL VOC.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or the path of a checkpoint file.")
    flags.DEFINE_bool("probabilities", False, "Write the class probabilities as well.")
    flags.DEFINE_float("alpha", 0.5, "Weight of the class colours in overlays.", 0, 1)
    flags.DEFINE_integer("sheet_rows", 8, "Images on the contact sheet. 0: no sheet.", 0)
    flags.DEFINE_integer(
        "max_pixels",
        None,
        f"Larger images are skipped, except TIFFs. Unset: {MAX_PIXELS}, or {MAX_TILED_PIXELS} with "
        "--tile.",
        1,
    )
    flags.DEFINE_list(
        "tile",
        [],
        "Height,width of the tiles of larger images, or one number for both, in multiples of the "
        "network's stride. Empty: images are seen as a whole, TIFFs in tiles of 1024,1024.",
    )
    flags.DEFINE_integer(
        "overlap",
        None,
        "Pixels by which a tile reaches into each neighbour. Unset: an eighth of the tile.",
    )
    flags.DEFINE_string(
        "vectors", "", "File of polygons of the regions in TIFFs, ending in .gpkg or .geojson."
    )
    flags.DEFINE_float(
        "min_area",
        0.0,
        "Smaller polygons are left out; in square metres, or pixels without a projection.",
        0,
    )
    flags.DEFINE_list("vector_classes", [], "Classes whose polygons are written. Empty: all.")
    cli.set_group(TILES, ["tile", "overlap"])
    cli.set_group(VECTORS, ["vectors", "min_area", "vector_classes"])
    configs.define_flags()


def main(values: flags.FlagValues) -> int:
    """Predicts every image that `--images` names; returns 1 if any could not be read."""
    cli.require(values, "model_dir", "images")
    if not values.submission:
        cli.require(values, "output_dir")
    prepare_backend()
    config = configs.from_flags(values)
    tile = cli.numbers(values, "tile", int)
    if values.overlap is not None and not tile:
        raise UserError(f"`--overlap` needs `--tile`. Received: --overlap={values.overlap}")
    # The images are found before the network is built, which takes seconds.
    images = find_images(values.images, values.output_dir or None)
    run = RunFolder(values.model_dir)
    vectors = _vectors(values, run.label_set, images)
    model = run.load_model(values.checkpoint, config.applied_to(run.experiment))
    tiling = Tiling.of(model, tile, values.overlap) if tile else None
    outputs = {name: values[name].value for name in OUTPUTS if values[name].value}
    with cli.writing(outputs), vectors or contextlib.nullcontext():
        failures = predict(
            model,
            run.label_set,
            images,
            values.output_dir or None,
            config=config,
            tiling=tiling,
            probabilities=values.probabilities,
            alpha=values.alpha,
            sheet_rows=values.sheet_rows,
            max_pixels=values.max_pixels,
            submission=values.submission or None,
            scene_bands=run.scene_bands,
            vectors=vectors,
        )
    if vectors and Path(values.vectors).is_file():  # Not if no TIFF could be predicted.
        print(f"{vectors.count} polygons in {values.vectors}")
    done = len(images) - len(failures)
    folders = " and ".join(filter(None, (values.output_dir, values.submission)))
    how = str(config)
    if tiling:
        how = how.replace("whole images", f"tiles of {tiling.tile[0]}x{tiling.tile[1]}")
    elif any(map(is_tiff, images.values())):
        how += "; TIFFs in tiles"
    print(f"{done} of {len(images)} images predicted ({how}); results in {folders}")
    for failure in failures:
        print(f"skipped {failure}")
    return 1 if failures else 0


def _vectors(
    values: flags.FlagValues, label_set: LabelSet, images: Mapping[str, Path]
) -> VectorFile | None:
    if not values.vectors:
        if values.min_area or values.vector_classes:
            raise UserError("`--min_area` and `--vector_classes` need `--vectors`")
        return None
    vectors = VectorFile(
        values.vectors, label_set, min_area=values.min_area, classes=values.vector_classes
    )
    vectors.check_images(sum(map(is_tiff, images.values())))
    return vectors


if __name__ == "__main__":
    cli.run(main, define_flags, less_memory=LESS_MEMORY)
