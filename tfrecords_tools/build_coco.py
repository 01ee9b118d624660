"""Converts COCO's instances, or other files of this format, into TFRecords.

    coco/annotations/instances_<split>.json
    coco/<split>/<file name>.jpg                  <split>: train2017, val2017, train2014, ...

    pip install -e ".[coco]"
    python -m tfrecords_tools.build_coco --raw_dir=coco --output_dir=records \\
        --splits=train2017,val2017

The rules differ from paper to paper, so each is a flag:

- `--categories`: `voc` (default) keeps the 20 categories that are VOC's classes and makes
  everything else background; `all` keeps the 80 categories and has 81 classes; `own` takes the
  categories of the JSON and adds a background, for the exports of annotation tools. Objects of a
  category that is named background draw nothing.
- `--min_image_area` (default 1000, with `own` 0): an image is kept if it has more pixels than this
  in objects of the kept categories (the rule of KSAC and of torchvision's reference training);
  0 keeps all.
- `--min_object_area` (default 0): objects with fewer pixels become background (Vortex pooling drops
  objects with fewer than 1000).
- `--object_overlap`: pixels in several objects are ignored (`ignore`, the default, as in
  torchvision's reference training), or belong to the first object in the JSON (`first`). No paper
  states it. With `own`, pixels in several objects of one class have this class.

Areas are counted on the drawn masks; `area` in the JSON is not read. Crowd regions count as
objects. An image with a faulty object is an error, or is left out with `--on_error=skip`.
`--annotation_file` and `--images` are for other layouts, such as Roboflow's:

    python -m tfrecords_tools.build_coco --raw_dir=export --output_dir=records \\
        --splits=train,valid --categories=own --annotation_file={split}/_annotations.coco.json

This process holds the JSON in packed form; for its memory, see tfrecords_tools/README.md.
"""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from kseg import cli
from kseg.data.datasets import COCO_CATEGORIES
from kseg.data.manifests import Manifest
from kseg.errors import UserError
from tfrecords_tools import coco_categories, coco_json, coco_masks, layouts, writer
from tfrecords_tools.coco_categories import Classes
from tfrecords_tools.coco_files import ImageFolder
from tfrecords_tools.coco_rules import Rules, counts_by_rule
from tfrecords_tools.coco_values import Identifier
from tfrecords_tools.inputs import Sample

ANNOTATIONS = "annotations/instances_{split}.json"


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train2017", "val2017"),
    categories: str = "voc",
    min_image_area: int | None = None,
    min_object_area: int = 0,
    object_overlap: str = "ignore",
    annotation_file: str = ANNOTATIONS,
    images: str = "{split}",
    **conversion: Any,
) -> list[Manifest]:
    """Converts splits of COCO, all or none.

    Args:
        raw_dir: The folder with `annotations` and one folder of images per split.
        output_dir: Folder of the records.
        splits: Names of the splits. Defaults to train2017 and val2017.
        categories: `"voc"`, `"all"` or `"own"`. Defaults to `"voc"`.
        min_image_area: An image must have more pixels than this in objects. Defaults to 1000
            (KSAC), or 0 with own categories; 0 keeps every image.
        min_object_area: Pixels that an object must have. Defaults to 0.
        object_overlap: `"ignore"` or `"first"`, see `coco_masks.read_label`. Defaults to
            `"ignore"`.
        annotation_file: Path of the JSON of a split in `raw_dir`. `{split}` stands for the name of
            the split. Defaults to annotations/instances_{split}.json.
        images: Folder of the images of a split in `raw_dir`, likewise. Defaults to {split}.
        **conversion: `num_shards`, `workers` and other arguments of `writer.convert`.

    Returns:
        One manifest per split. `images_left_out` in its arguments says for each split how many
        images each rule has left out, and `objects_without_pixels` how many objects of each image
        draw nothing, see `coco_rules.Rules`.

    Raises:
        UserError: If an argument is out of range, a folder or JSON is missing or has other
            categories than expected, pycocotools is not installed, or the input has problems (all
            of them are named).
    """
    raw_dir = Path(raw_dir)
    for name, value, choices in (
        ("categories", categories, coco_categories.CHOICES),
        ("object_overlap", object_overlap, coco_masks.OVERLAPS),
    ):
        if value not in choices:
            raise UserError(f"`{name}` must be one of {', '.join(choices)}. Received: {value!r}")
    if min_image_area is None:
        min_image_area = 0 if categories == "own" else 1000
    for name, value in (("min_image_area", min_image_area), ("min_object_area", min_object_area)):
        if value < 0:
            raise UserError(f"`{name}` must be at least 0. Received: {value}")
    layouts.check_splits(splits)
    files = {split: annotation_file.replace("{split}", split) for split in splits}
    folders = {split: images.replace("{split}", split) for split in splits}
    parents = {str(Path(file).parent) for file in files.values()} - {"."}
    layouts.require_layout(raw_dir, (*sorted(parents), *folders.values()), "COCO")
    coco_masks.require()
    is_own = categories == "own"
    classes = coco_categories.CHOICES[categories]
    loaded = {
        split: coco_json.Instances(raw_dir / files[split], classes and classes.ids)
        for split in splits
    }
    used = frozenset().union(*(instances.used for instances in loaded.values()))
    problems: list[str] = []
    samples: dict[str, list[Sample]] = {}
    left_out, without_pixels = {}, {}
    for split in splits:
        instances = loaded.pop(split)
        if is_own:
            found = coco_categories.own_classes(instances.path, instances.categories, used)
            if classes is None:
                classes = found  # Also with its colours, which may differ in other splits.
            elif (found.ids, found.label_set.names) != (classes.ids, classes.label_set.names):
                raise UserError(
                    f"{instances.path}: the categories are not those of "
                    f"{raw_dir / files[splits[0]]}. All splits must have the same categories with "
                    "the same ids"
                )
            known = classes.ids
        else:
            coco_categories.check_is_coco(instances.path, instances.categories)
            known = COCO_CATEGORIES
        rules = Rules(split, min_image_area, min_object_area)
        folder = ImageFolder(raw_dir / folders[split])
        samples[split] = _samples(instances, folder, classes, known, rules, problems)
        if conversion.get("on_error") == "skip":
            # An image without objects is kept only if there is no limit.
            _check_assigned(instances.unassigned + ([] if min_image_area else instances.orphans))
        left_out[split], without_pixels[split] = rules.left_out, rules.without_pixels
        if not samples[split] and rules.reason():
            problems.append(rules.reason())
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=classes.label_set,
        read_label=functools.partial(
            coco_masks.read_label, overlap=object_overlap, same_class=not is_own
        ),
        problems=problems,
        tool="tfrecords_tools.build_coco",
        arguments={
            "raw_dir": raw_dir,
            "splits": splits,
            "categories": categories,
            "min_image_area": min_image_area,
            "min_object_area": min_object_area,
            "object_overlap": object_overlap,
            "annotation_file": annotation_file,
            "images": images,
            "images_left_out": left_out,
            "objects_without_pixels": without_pixels,
        },
        **conversion,
    )


def _check_assigned(unassigned: Sequence[str]) -> None:
    """Raises `UserError` if problems are skipped, but there are objects of unknown images."""
    if unassigned:
        raise UserError(
            "annotations that do not say to which image they belong cannot be skipped, since "
            "any image may lack such an object:\n  " + "\n  ".join(unassigned)
        )


def _samples(
    instances: coco_json.Instances,
    folder: ImageFolder,
    classes: Classes,
    known: Collection[Identifier],
    rules: Rules,
    problems: list[str],
) -> list[Sample]:
    """Returns the samples of a split that the rules keep, sorted by name."""
    samples = []
    images = instances.images(folder, known, problems)
    for image in tqdm(images, desc=f"{rules.split}: objects", unit="image", disable=None):
        label = rules.label(image, classes.ids)
        if label is None:
            continue
        if problem := folder.problem_of(image.file):
            problems.append(f"{instances.path}: image id {image.number!r}: {problem}")
            continue
        samples.append(Sample(image.name, image.file, label))
    return sorted(samples, key=lambda sample: sample.name)


def define_flags() -> None:
    layouts.define_flags(
        "Folder with annotations and a folder of images for each split.", ("train2017", "val2017")
    )
    flags.DEFINE_enum(
        "categories",
        "voc",
        list(coco_categories.CHOICES),
        "VOC's 21 classes, all 80 categories of COCO, or those of a JSON of your own, with a "
        "background added.",
    )
    cli.define_alias("classes", "categories")
    flags.DEFINE_string(
        "annotation_file",
        ANNOTATIONS,
        "JSON of a split in --raw_dir. {split} stands for the split.",
    )
    flags.DEFINE_string(
        "images", "{split}", "Folder of the images of a split in --raw_dir, likewise."
    )
    flags.DEFINE_integer(
        "min_image_area",
        None,
        "An image must have more pixels than this in objects (KSAC); 0 keeps every image. Default: "
        "1000, or 0 with --categories=own.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "min_object_area",
        0,
        "Objects with fewer pixels become background (Vortex pooling: 1000).",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "object_overlap",
        "ignore",
        list(coco_masks.OVERLAPS),
        "Pixels in several objects: ignored, or of the class of the first object. With "
        "--categories=own, pixels in several objects of one class have this class.",
    )
    cli.define_alias("overlap", "object_overlap")


def main(values: flags.FlagValues) -> None:
    names = (
        "categories",
        "min_image_area",
        "min_object_area",
        "object_overlap",
        "annotation_file",
        "images",
    )
    for manifest in layouts.run(build, values, *names):
        left_out = manifest.arguments["images_left_out"][manifest.split]
        counts = counts_by_rule(left_out)
        print(
            f"{manifest.split}: kept {manifest.num_examples} images, left out "
            f"{sum(left_out.values())}{' (' + counts + ')' if counts else ''}"
        )


if __name__ == "__main__":
    cli.run(main, define_flags)
