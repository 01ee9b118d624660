"""Converts COCO's instances into TFRecords: VOC's 21 classes, or all 80 categories.

    coco/annotations/instances_<split>.json
    coco/<split>/<file name>.jpg                  <split>: train2017, val2017, train2014, ...

    pip install -e ".[coco]"
    python -m tfrecords_tools.build_coco --raw_dir=coco --output_dir=records \\
        --splits=train2017,val2017

The rules differ from paper to paper, so each is a flag:

- `--classes`: `voc` (default) keeps the 20 categories that are VOC's classes and makes everything
  else background; `all` keeps the 80 categories and has 81 classes.
- `--min_image_area` (default 1000): an image is kept if it has more pixels than this in objects of
  the kept categories (the rule of KSAC and of torchvision's reference training); 0 keeps all.
- `--min_object_area` (default 0): objects with fewer pixels become background (Vortex pooling drops
  objects with fewer than 1000).
- `--overlap`: pixels in several objects are ignored (`ignore`, the default, as in torchvision's
  reference training), or belong to the first object in the JSON (`first`). No paper says.

Areas are counted on the drawn masks; `area` in the JSON is not read. Crowd regions count as
objects. This process holds the JSON in packed form; for its memory, see tfrecords_tools/README.md.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from kseg import cli
from kseg.data.datasets import COCO, COCO_CATEGORIES, COCO_IDS_OF_VOC, VOC
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import coco_json, coco_masks, layouts, writer
from tfrecords_tools.inputs import Sample

# For each choice of --classes: the classes, and the class id of each COCO category that is kept.
CLASSES = {
    "voc": (VOC, {number: k for k, number in enumerate(COCO_IDS_OF_VOC) if number}),
    "all": (COCO, {number: k for k, number in enumerate(COCO_CATEGORIES, 1)}),
}
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train2017", "val2017"),
    classes: str = "voc",
    min_image_area: int = 1000,
    min_object_area: int = 0,
    overlap: str = "ignore",
    **conversion: Any,
) -> list[Manifest]:
    """Converts splits of COCO, all or none.

    Args:
        raw_dir: The folder with `annotations` and one folder of images per split.
        output_dir: Folder of the records.
        splits: Names of the folders of images, and of `annotations/instances_<split>.json`.
            Defaults to train2017 and val2017.
        classes: `"voc"` or `"all"`. Defaults to `"voc"`.
        min_image_area: An image must have more pixels than this in objects. Defaults to 1000
            (KSAC); 0 keeps every image.
        min_object_area: Pixels that an object must have. Defaults to 0.
        overlap: `"ignore"` or `"first"`, see `coco_masks.read_label`. Defaults to `"ignore"`.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split. `images_left_out` in its arguments says how many images the rules
        have left out of each split.

    Raises:
        UserError: If an argument is out of range, a folder or JSON is missing or is not COCO's,
            pycocotools is not installed, or the input has problems (all of them are named).
    """
    raw_dir = Path(raw_dir)
    for name, value, choices in (
        ("classes", classes, CLASSES),
        ("overlap", overlap, coco_masks.OVERLAPS),
    ):
        if value not in choices:
            raise UserError(f"`{name}` must be one of {', '.join(choices)}. Received: {value!r}")
    for name, value in (("min_image_area", min_image_area), ("min_object_area", min_object_area)):
        if value < 0:
            raise UserError(f"`{name}` must be at least 0. Received: {value}")
    layouts.check_splits(splits)
    layouts.require_layout(raw_dir, ("annotations", *splits), "COCO")
    coco_masks.require()
    label_set, class_ids = CLASSES[classes]
    problems: list[str] = []
    samples: dict[str, list[Sample]] = {}
    left_out = {}
    for split in splits:
        samples[split], left_out[split] = _samples(
            raw_dir, split, class_ids, min_image_area, min_object_area, problems
        )
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=label_set,
        read_label=functools.partial(coco_masks.read_label, overlap=overlap),
        problems=problems,
        tool="tfrecords_tools.build_coco",
        arguments={
            "raw_dir": raw_dir,
            "splits": splits,
            "classes": classes,
            "min_image_area": min_image_area,
            "min_object_area": min_object_area,
            "overlap": overlap,
            "images_left_out": left_out,
        },
        **conversion,
    )


def _samples(
    raw_dir: Path,
    split: str,
    class_ids: dict[int, int],
    min_image_area: int,
    min_object_area: int,
    problems: list[str],
) -> tuple[list[Sample], int]:
    """Returns the samples of a split, sorted by name, and how many images the rules leave out."""
    path = raw_dir / "annotations" / f"instances_{split}.json"
    samples = []
    left_out = 0
    images = coco_json.read(path, class_ids, problems)
    for image in tqdm(images, desc=f"{split}: objects", unit="image", disable=None):
        objects = []
        for category, shape in image.objects:
            counts, area = coco_masks.draw(shape, image.height, image.width)
            if area >= max(1, min_object_area):
                objects.append((class_ids[category], counts))
        label = coco_masks.Label(image.height, image.width, tuple(objects))
        if min_image_area and coco_masks.union_area(label) <= min_image_area:
            left_out += 1
            continue
        file = raw_dir / split / image.file_name
        if file.suffix.lower() not in _IMAGE_SUFFIXES:
            problems.append(
                f"{path}: image id {image.number}: {file.name} must end in "
                f"{' or '.join(_IMAGE_SUFFIXES)}"
            )
            continue
        name = image.file_name[: -len(file.suffix)]
        samples.append(Sample(name, file, label))
    return sorted(samples, key=lambda sample: sample.name), left_out


def define_flags() -> None:
    layouts.define_flags(
        "Folder with annotations and a folder of images for each split.", ("train2017", "val2017")
    )
    flags.DEFINE_enum("classes", "voc", list(CLASSES), "VOC's 21 classes, or all 80 categories.")
    flags.DEFINE_integer(
        "min_image_area",
        1000,
        "An image must have more pixels than this in objects (KSAC); 0 keeps every image.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "min_object_area",
        0,
        "Objects with fewer pixels become background (Vortex pooling: 1000).",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "overlap",
        "ignore",
        list(coco_masks.OVERLAPS),
        "Pixels in several objects: ignored, or of the class of the first object.",
    )


def main(values: flags.FlagValues) -> None:
    for manifest in layouts.run(
        build, values, "classes", "min_image_area", "min_object_area", "overlap"
    ):
        left_out = manifest.arguments["images_left_out"][manifest.split]
        print(f"{manifest.split}: kept {manifest.num_examples} images, left out {left_out}")


if __name__ == "__main__":
    cli.run(main, define_flags)
