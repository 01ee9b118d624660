"""Converts sets of tensorflow-datasets that carry masks into TFRecords.

    pip install -e ".[tfds]"
    python -m tfrecords_tools.build_tfds --dataset=tfds:oxford_iiit_pet --raw_dir=prepared \\
        --output_dir=records --splits=train,test --download

`--raw_dir` is the data folder of tensorflow-datasets (its `data_dir`). Sets that are known, since
their masks need a table:

    tfds:oxford_iiit_pet    background and pet; the outline is ignored
    tfds:cityscapes         19 classes (the archives must be downloaded by hand; see its page)

Of any other set, tell the features and the classes (a file as for build_folder); its masks hold the
ids, 255 where a pixel counts for nothing:

    ... --dataset=tfds:name --image_key=image --label_key=segmentation_mask --classes=classes.txt

The files in the set are kept as they are. They lie in `--output_dir` in a hidden folder while they
are converted, which takes the place of one more copy of the set.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from kseg import cli
from kseg.data.datasets import CITYSCAPES, CITYSCAPES_RAW_IDS, PETS, PETS_RAW_IDS, LabelSet
from kseg.data.records import Manifest
from kseg.errors import UserError, missing_extra
from tfrecords_tools import build_folder, inputs, layouts, options, staging, summary, writer
from tfrecords_tools.inputs import Sample
from tfrecords_tools.remap import Remap, read_remapped_mask

PREFIX = "tfds:"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a set of tensorflow-datasets has its images and masks, and what the masks mean.

    `knows_colours` is whether the colours of the label set are those of the masks' palettes.
    """

    image_key: str
    label_key: str
    label_set: LabelSet
    raw_ids: Mapping[int, int] | None = None
    knows_colours: bool = True

    @property
    def read_label(self) -> inputs.ReadLabel:
        if self.raw_ids is None:
            known = self.knows_colours
            return inputs.read_index_mask if known else inputs.read_mask_of_any_palette
        return functools.partial(read_remapped_mask, remap=Remap(self.raw_ids, {}))


KNOWN = {
    "oxford_iiit_pet": Source("image", "segmentation_mask", PETS, PETS_RAW_IDS),
    "cityscapes": Source("image_left", "segmentation_label", CITYSCAPES, CITYSCAPES_RAW_IDS),
}
# Sets that look as if they fitted.
_UNFIT = {
    "scene_parse150": "its masks are those of the instance task, with 100 classes; ADE20K's 150 "
    "classes come through tfrecords_tools.build_ade20k"
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
    download: bool = False,
    **conversion,
) -> list[Manifest]:
    """Converts splits of a set of tensorflow-datasets, all or none.

    Args:
        dataset: `"tfds:<name>"`, also with `/<config>` and `:<version>`.
        raw_dir: data folder of tensorflow-datasets (its `data_dir`).
        output_dir: folder of the records.
        splits: names of splits of the set, such as `train`.
        image_key: feature with the images; not needed for the known sets.
        label_key: feature with the masks; likewise.
        classes: classes file, see `build_folder.read_classes`; likewise.
        download: whether a set that is not in `raw_dir` is downloaded and prepared there.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: tensorflow-datasets is not installed, the set, a split or a feature is not there,
            or the inputs have problems (all are named).
    """
    if not dataset.startswith(PREFIX) or dataset == PREFIX:
        raise UserError(f"`dataset` must be {PREFIX}<name>. Received: {dataset!r}")
    name = dataset.removeprefix(PREFIX)
    source = _source(name, image_key, label_key, classes)
    layouts.check_splits(splits)
    builder = _builder(name, raw_dir, download)
    _check_features(builder, source)
    missing = [split for split in splits if split not in builder.info.splits]
    if missing:
        known = ", ".join(sorted(builder.info.splits))
        raise UserError(f"{dataset} has no split {missing[0]!r}; its splits: {known}")
    for split in splits:
        writer.check_split_name(split)
    output_dir = Path(output_dir)
    folders = {split: output_dir / f".{split}{staging.UNPACKED}" for split in splits}
    try:
        samples = {
            split: list(_unpack(builder, split, source, folder))
            for split, folder in folders.items()
        }
        manifests = writer.convert(
            samples,
            output_dir=output_dir,
            label_set=source.label_set,
            read_label=source.read_label,
            tool="tfrecords_tools.build_tfds",
            arguments={
                "dataset": f"{PREFIX}{builder.info.full_name}",
                "raw_dir": str(raw_dir),
                "splits": list(splits),
                "image_key": source.image_key,
                "label_key": source.label_key,
            },
            **conversion,
        )
    except UserError:
        _remove(folders.values())
        raise
    # Not after Ctrl-C: the run that goes on needs the files as they were.
    _remove(folders.values())
    return manifests


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _source(name: str, image_key: str, label_key: str, classes: str | Path | None) -> Source:
    plain = name.split("/")[0].split(":")[0]
    if classes:
        label_set, has_colours = build_folder.read_classes(classes)
        return Source(image_key, label_key, label_set, knows_colours=has_colours)
    if plain in KNOWN:
        return KNOWN[plain]
    reason = _UNFIT.get(
        plain, f"`--classes` must be given for all sets but {', '.join(sorted(KNOWN))}"
    )
    raise UserError(f"{PREFIX}{plain}: {reason}")


def _builder(name: str, raw_dir: str | Path, download: bool):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise missing_extra("tfds", f"{PREFIX}{name}", error) from error
    try:
        builder = tfds.builder(name, data_dir=str(raw_dir))
        if download:
            builder.download_and_prepare()
    except Exception as error:
        # tensorflow-datasets raises whatever its sets and their downloads meet.
        raise UserError(f"{PREFIX}{name} cannot be had: {error}") from error
    if not builder.info.splits:
        raise UserError(
            f"`raw_dir` must be a data folder of tensorflow-datasets that holds {name}, or "
            f"--download be given. Not prepared there: {raw_dir}"
        )
    return builder


def _check_features(builder, source: Source) -> None:
    import tensorflow_datasets as tfds

    features = builder.info.features
    pictures = [key for key in features if isinstance(features[key], tfds.features.Image)]
    for name, key in (("image_key", source.image_key), ("label_key", source.label_key)):
        if key not in pictures:
            raise UserError(
                f"`{name}` must be one of the pictures of {builder.info.full_name}: "
                f"{', '.join(pictures) or 'it has none'}. Received: {key!r}"
            )


def _unpack(builder, split: str, source: Source, folder: Path) -> Iterator[Sample]:
    """Writes the encoded pictures of a split into a folder, named by where they lie in the set."""
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
    """Writes a file unless it is there: a run that goes on shall find it unchanged."""
    path = path.with_name(path.name + (".jpg" if contents.startswith(b"\xff\xd8") else ".png"))
    with contextlib.suppress(OSError):
        if path.read_bytes() == contents:
            return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def define_flags() -> None:
    layouts.define_flags("Data folder of tensorflow-datasets.", ("train", "test"))
    flags.DEFINE_string("dataset", "", "tfds:<name>, also tfds:<name>/<config>:<version>.")
    flags.DEFINE_string("image_key", "image", "Feature with the images (of a set not known here).")
    flags.DEFINE_string("label_key", "segmentation_mask", "Feature with the masks (likewise).")
    flags.DEFINE_string("classes", None, "Text file, a class a line (likewise).")
    flags.DEFINE_bool("download", False, "Download and prepare the set if it is not there.")


def main(values: flags.FlagValues) -> None:
    cli.require(values, "dataset", "raw_dir", "output_dir", "splits")
    manifests = build(
        values.dataset,
        values.raw_dir,
        values.output_dir,
        splits=values.splits,
        image_key=values.image_key,
        label_key=values.label_key,
        classes=values.classes,
        download=values.download,
        **options.from_flags(values),
    )
    print(summary.report(manifests, values.output_dir))


if __name__ == "__main__":
    cli.run(main, define_flags)
