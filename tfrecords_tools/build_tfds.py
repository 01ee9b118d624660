"""Converts data sets of tensorflow-datasets that have masks into TFRecords.

    pip install -e ".[tfds]"
    python -m tfrecords_tools.build_tfds --dataset=tfds:oxford_iiit_pet --raw_dir=prepared \\
        --output_dir=records --splits=train,test --download

`--raw_dir` is the data folder of tensorflow-datasets (its `data_dir`). Two sets whose masks need a
table are built in:

    tfds:oxford_iiit_pet    background and pet; the outline is ignored
    tfds:cityscapes         19 classes (the archives must be downloaded by hand; see its page)

For any other set, give the features and the classes (a file as for build_folder). Its masks must
hold the class ids, and 255 for pixels to ignore, or the colours of the classes file:

    ... --dataset=tfds:name --image_key=image --label_key=segmentation_mask --classes=classes.txt

The files in the set keep their bytes. During the conversion they are in a hidden folder in
`--output_dir`, which needs the space of another copy of the set.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from tqdm import tqdm

from kseg import cli
from kseg.data import masks
from kseg.data.datasets import CITYSCAPES, CITYSCAPES_RAW_IDS, PETS, PETS_RAW_IDS, LabelSet
from kseg.data.manifests import Manifest
from kseg.errors import UserError, missing_extra
from tfrecords_tools import inputs, layouts, lists, staging, writer
from tfrecords_tools.inputs import Sample

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

PREFIX = "tfds:"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a set of tensorflow-datasets has its images and masks, and what the masks mean.

    Args:
        image_key: The feature with the images.
        label_key: The feature with the masks.
        label_set: The classes.
        read_label: Reads a mask into class ids.
    """

    image_key: str
    label_key: str
    label_set: LabelSet
    read_label: inputs.ReadLabel


KNOWN = {
    "oxford_iiit_pet": Source("image", "segmentation_mask", PETS, masks.MaskRule(ids=PETS_RAW_IDS)),
    "cityscapes": Source(
        "image_left",
        "segmentation_label",
        CITYSCAPES,
        masks.MaskRule(ids=CITYSCAPES_RAW_IDS),
    ),
}
# Sets that seem suitable but are not.
_UNSUITABLE = {
    "scene_parse150": "its masks are those of the instance task, with 100 classes. For ADE20K's "
    "150 classes, use tfrecords_tools.build_ade20k"
}


def build(
    dataset: str,
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "test"),
    image_key: str = "image",
    label_key: str = "segmentation_mask",
    classes: str | Path | None = None,
    masks_are: str | None = None,
    download: bool = False,
    **conversion: Any,
) -> list[Manifest]:
    """Converts splits of a set of tensorflow-datasets, all or none.

    Args:
        dataset: `"tfds:<name>"`, also with `/<config>` and `:<version>`.
        raw_dir: Data folder of tensorflow-datasets (its `data_dir`).
        output_dir: Folder of the records.
        splits: Names of splits of the set. Defaults to train and test.
        image_key: The feature with the images. Defaults to `"image"`; a built-in set ignores it.
        label_key: The feature with the masks. Defaults to `"segmentation_mask"`; likewise.
        classes: Classes file, see `lists.read_classes`. A built-in set needs none.
        masks_are: `"ids"` or `"colours"`, see `lists.mask_rule`. Defaults to None: colours if the
            classes file has them. A built-in set ignores it.
        download: Whether to download and prepare a set that is not in `raw_dir`. Defaults to False.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If tensorflow-datasets is not installed, the set, a split or a feature does not
            exist, or the input has problems (all of them are named).
    """
    if not dataset.startswith(PREFIX) or dataset == PREFIX:
        raise UserError(f"`dataset` must be {PREFIX}<name>. Received: {dataset!r}")
    name = dataset.removeprefix(PREFIX)
    source = _source(name, image_key, label_key, classes, masks_are)
    layouts.check_splits(splits)
    builder = _builder(name, raw_dir, download)
    _check_features(builder, source)
    layouts.check_splits(splits, sorted(builder.info.splits))
    with staging.unpacked(Path(output_dir), splits) as folders:
        samples = {
            split: list(_unpack(builder, split, source, folder))
            for split, folder in folders.items()
        }
        return writer.convert(
            samples,
            output_dir=output_dir,
            label_set=source.label_set,
            read_label=source.read_label,
            tool="tfrecords_tools.build_tfds",
            arguments={
                "dataset": f"{PREFIX}{builder.info.full_name}",
                "raw_dir": raw_dir,
                "splits": splits,
                "image_key": source.image_key,
                "label_key": source.label_key,
                "masks_are": masks_are,
            },
            **conversion,
        )


def _source(
    name: str, image_key: str, label_key: str, classes: str | Path | None, masks_are: str | None
) -> Source:
    base = name.split("/")[0].split(":")[0]
    if classes:
        label_set, has_colours = lists.read_classes(classes)
        rule = lists.mask_rule(label_set, has_colours=has_colours, masks_are=masks_are)
        return Source(image_key, label_key, label_set, rule)
    if base in KNOWN:
        return KNOWN[base]
    if base in _UNSUITABLE:
        raise UserError(f"`dataset` cannot be {PREFIX}{base}: {_UNSUITABLE[base]}")
    raise UserError(
        f"`classes` must be given for all sets except {', '.join(sorted(KNOWN))}. Received: "
        f"{PREFIX}{base}"
    )


def _builder(name: str, raw_dir: str | Path, download: bool) -> "tfds.core.DatasetBuilder":
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise missing_extra("tfds", f"{PREFIX}{name}", error) from error
    try:
        builder = tfds.builder(name, data_dir=str(raw_dir))
        if download:
            builder.download_and_prepare()
    except Exception as error:
        # tensorflow-datasets raises errors of many types in its sets and their downloads.
        # For an unknown name its message lists the hundreds that there are.
        reason = str(error).split("\nAvailable datasets:")[0]
        raise UserError(f"`dataset` {PREFIX}{name} is not available: {reason}") from error
    if not builder.info.splits:
        raise UserError(
            f"`raw_dir` must be a data folder of tensorflow-datasets with {name}, or --download "
            f"must be given. Not prepared in: {raw_dir}"
        )
    return builder


def _check_features(builder: "tfds.core.DatasetBuilder", source: Source) -> None:
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    for name, key in (("image_key", source.image_key), ("label_key", source.label_key)):
        if key not in images:
            raise UserError(
                f"`{name}` must be one of the image features of {builder.info.full_name}: "
                f"{', '.join(images) or 'it has none'}. Received: {key!r}"
            )


def _unpack(
    builder: "tfds.core.DatasetBuilder", split: str, source: Source, folder: Path
) -> Iterator[Sample]:
    """Writes the encoded images and masks of a split to files, named by their place in the set."""
    import tensorflow_datasets as tfds

    examples = builder.as_dataset(
        split=split,
        decoders={
            source.image_key: tfds.decode.SkipDecoding(),
            source.label_key: tfds.decode.SkipDecoding(),
        },
        shuffle_files=False,
        read_config=tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1),
    )
    total = builder.info.splits[split].num_examples
    for example in tqdm(examples, f"{split}: files", total, unit="image", disable=None):
        name = example["tfds_id"].numpy().decode().replace("/", "_")
        image = _write(folder / "images" / name, example[source.image_key].numpy())
        label = _write(folder / "labels" / name, example[source.label_key].numpy())
        yield Sample(name, image, label)


def _write(path: Path, contents: bytes) -> Path:
    """Writes an encoded image, with the ending of its format."""
    ending = ".jpg" if contents.startswith(b"\xff\xd8") else ".png"
    return staging.write_unless_unchanged(path.with_name(path.name + ending), contents)


def define_flags() -> None:
    layouts.define_flags("Data folder of tensorflow-datasets.", ("train", "test"))
    flags.DEFINE_string("dataset", "", "tfds:<name>, also tfds:<name>/<config>:<version>.")
    flags.DEFINE_string("image_key", "image", "Feature with the images. Built-in sets ignore it.")
    flags.DEFINE_string(
        "label_key", "segmentation_mask", "Feature with the masks. Built-in sets ignore it."
    )
    flags.DEFINE_string(
        "classes", None, "Text file with one class per line. Built-in sets need none."
    )
    layouts.define_masks_are()
    flags.DEFINE_bool("download", False, "Download and prepare the set if it is not in --raw_dir.")


def main(values: flags.FlagValues) -> None:
    cli.require(values, "dataset")
    layouts.run(
        build, values, "dataset", "image_key", "label_key", "classes", "masks_are", "download"
    )


if __name__ == "__main__":
    cli.run(main, define_flags)
