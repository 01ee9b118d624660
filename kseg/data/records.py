"""Reading and writing of the records of a data set, and of the manifest of a split.

The feature keys are those of the official DeepLab code (`build_data.py`), so that kseg reads the
shards of that code and that code reads those of kseg. Images are stored as the original bytes of
their files, and a label map as a single-channel PNG whose pixel values are class ids. The files of
a split are

    <split>-00000-of-0000N.tfrecord   N shards
    <split>.manifest.json             written last, so that a split without it is not finished

TensorFlow is imported inside the functions that need it. The worker processes of a conversion also
import this module, and TensorFlow would take half a gigabyte of memory in each of them.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE = "image/encoded"
IMAGE_FORMAT = "image/format"
FILENAME = "image/filename"
HEIGHT = "image/height"
WIDTH = "image/width"
CHANNELS = "image/channels"
LABEL = "image/segmentation/class/encoded"
LABEL_FORMAT = "image/segmentation/class/format"

MANIFEST_SUFFIX = ".manifest.json"
_SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.tfrecord")
_HOW_TO_FINISH = (
    "Its shards exist. If another tool wrote them, add the manifest with: python -m "
    "tfrecords_tools.build_manifest --data_dir={data_dir} --splits={split} --dataset=voc "
    "(or another data set, or --classes)"
)
_HOW_TO_CONVERT = (
    "Convert with: python -m tfrecords_tools.build_voc --raw_dir=VOC2012 --output_dir={data_dir} "
    "--splits={split} (or tfrecords_tools.build_folder for other folders of images and masks)"
)


def encode_example(
    *, image: bytes, image_format: str, label: bytes, height: int, width: int, filename: str
) -> bytes:
    """Serialises an example. The same arguments always give the same bytes.

    Args:
        image: Bytes of a JPEG or PNG file.
        image_format: `"jpeg"` or `"png"`.
        label: Bytes of a single-channel PNG file whose pixel values are class ids.
        height: Height of image and label in pixels.
        width: Width of image and label in pixels.
        filename: Name of the example, such as `2007_000033`.

    Returns:
        A serialised `tf.train.Example`.

    Raises:
        ValueError: If `image_format` is neither of the two.
    """
    import tensorflow as tf

    if image_format not in ("jpeg", "png"):
        raise ValueError(f'`image_format` must be "jpeg" or "png". Received: {image_format!r}')

    def bytes_feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def int_feature(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    feature = {
        IMAGE: bytes_feature(image),
        IMAGE_FORMAT: bytes_feature(image_format.encode()),
        FILENAME: bytes_feature(filename.encode()),
        HEIGHT: int_feature(height),
        WIDTH: int_feature(width),
        CHANNELS: int_feature(3),
        LABEL: bytes_feature(label),
        LABEL_FORMAT: bytes_feature(b"png"),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # The order of a protobuf map is undefined. Without this, the bytes would differ between runs.
    return example.SerializeToString(deterministic=True)


def decode_example(serialized: "tf.Tensor") -> "dict[str, tf.Tensor]":
    """Decodes an example of `encode_example` or the official DeepLab tools, also in graph mode.

    Args:
        serialized: string scalar, a serialised `tf.train.Example`.

    Returns:
        A dictionary of `image`, uint8 `[height, width, 3]`, RGB; `label`, uint8 `[height, width]`;
        and `filename`, string scalar.
    """
    encoded = parse_example(serialized)
    return {
        "image": decode_image(encoded["image"]),
        "label": decode_label(encoded["label"]),
        "filename": encoded["filename"],
    }


def parse_example(serialized: "tf.Tensor") -> "dict[str, tf.Tensor]":
    """Returns the encoded `image`, the encoded `label` and the `filename` of an example."""
    import tensorflow as tf

    features = tf.io.parse_single_example(
        serialized,
        {
            IMAGE: tf.io.FixedLenFeature([], tf.string),
            LABEL: tf.io.FixedLenFeature([], tf.string),
            FILENAME: tf.io.FixedLenFeature([], tf.string, default_value=""),
        },
    )
    return {"image": features[IMAGE], "label": features[LABEL], "filename": features[FILENAME]}


def decode_image(contents: "tf.Tensor") -> "tf.Tensor":
    """Decodes a JPEG or PNG file as RGB. Training, evaluation, prediction and export all use it.

    The pixels are returned as stored: the EXIF orientation is not applied. An alpha channel is
    dropped and greyscale is repeated in all channels. JPEG files are decoded with the accurate
    inverse DCT and have the same pixels as in Pillow; with TensorFlow's default most would differ.

    Args:
        contents: string scalar, the bytes of the file.

    Returns:
        uint8 tensor `[height, width, 3]`.
    """
    import tensorflow as tf

    image = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(contents, channels=3),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_label(contents: "tf.Tensor") -> "tf.Tensor":
    """Decodes a single-channel PNG file as class ids, uint8 `[height, width]`.

    Not for palette PNGs, which TensorFlow decodes as luminance. The converters read these with
    Pillow instead.
    """
    import tensorflow as tf

    return tf.squeeze(tf.io.decode_png(contents, channels=1), axis=-1)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records: its name, number of examples, size in bytes and SHA-256 (hexadecimal)."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Description of a finished split.

    Attributes:
        split: Name of the split.
        names: Class names in the order of their ids.
        colours: (red, green, blue) of each class.
        ignore_label: Label of ignored pixels.
        shards: The shards in order.
        pixels_per_class: Number of label pixels of each class in the split.
        pixels_ignored: Number of label pixels that are `ignore_label`.
        tool: Program that wrote the shards.
        arguments: Arguments of that program.
        skipped: Invalid inputs that were left out, each as a line with file and reason.
        masks_are: What the masks held, `"ids"` or `"colours"`; see `kseg.data.masks.MaskRule`.
        mask_colours: Red, green, blue and class id of each colour, if they held colours.
        scene_bands: How images were made from the bands of scenes. None: they were not.
    """

    split: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore_label: int
    shards: tuple[Shard, ...]
    pixels_per_class: tuple[int, ...]
    pixels_ignored: int
    tool: str
    arguments: dict
    skipped: tuple[str, ...] = ()
    masks_are: str = "ids"
    mask_colours: tuple[tuple[int, int, int, int], ...] = ()
    scene_bands: SceneBands | None = None

    @property
    def num_examples(self) -> int:
        """Number of examples in all shards."""
        return sum(shard.examples for shard in self.shards)

    def label_set(self) -> LabelSet:
        """Returns the classes as a `LabelSet`."""
        return LabelSet(self.names, self.colours, self.ignore_label)

    def require_labels(self, data_dir: str | os.PathLike) -> None:
        """Raises `UserError` if no pixel of the split, which is in `data_dir`, is labelled."""
        if self.pixels_ignored and not any(self.pixels_per_class):
            raise UserError(
                f"Split {self.split!r} in {data_dir} must have labelled pixels. All of its "
                f"{self.pixels_ignored} pixels are {self.ignore_label} (ignored), so that nothing "
                "can be trained or measured on it. Do its masks mean something else?"
            )


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of shard `index` (from 0) of `count`."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def parse_shard_name(name: str) -> tuple[str, int, int] | None:
    """Returns (split, index, count) of the file name of a shard, or None for any other name."""
    match = _SHARD.fullmatch(name)
    return match and (match["split"], int(match["index"]), int(match["count"]))


def resolve_split(data_dir: str | os.PathLike, split: str) -> tuple[Path, str]:
    """Returns folder and name of a split: `voc/train` is train in the subfolder voc."""
    path = Path(data_dir) / split
    return path.parent, path.name


def manifest_path(data_dir: str | os.PathLike, split: str) -> Path:
    """Returns the path of the manifest of a split."""
    return Path(data_dir) / f"{split}{MANIFEST_SUFFIX}"


def finished_splits(data_dir: str | os.PathLike) -> list[str]:
    """Returns the names of the splits in a folder that have a manifest, sorted."""
    names = (path.name for path in Path(data_dir).glob(f"[!.]*{MANIFEST_SUFFIX}"))
    return sorted(name.removesuffix(MANIFEST_SUFFIX) for name in names)


def read_manifest(data_dir: str | os.PathLike, split: str) -> Manifest:
    """Reads the manifest of a split.

    Args:
        data_dir: Folder of the shards.
        split: Name of the split. It may start with a subfolder of `data_dir`, as in voc/val.

    Raises:
        UserError: If the folder, the split or its manifest is missing or the manifest is invalid.
            The message lists the existing splits and gives the command that creates one.
    """
    data_dir, split = resolve_split(data_dir, split)
    how = _HOW_TO_CONVERT.format(data_dir=data_dir, split=split)
    if not Path(data_dir).is_dir():
        raise UserError(f"`data_dir` must be a folder of records. Not found: {data_dir}. {how}")
    path = manifest_path(data_dir, split)
    if not path.is_file():
        known = ", ".join(finished_splits(data_dir)) or "none"
        shards = map(parse_shard_name, os.listdir(data_dir))
        if any(parts and parts[0] == split for parts in shards):
            how = f"{_HOW_TO_FINISH.format(data_dir=data_dir, split=split)}. {how}"
        raise UserError(
            f"There is no finished split {split!r} in {data_dir}. Finished splits: {known}. {how}"
        )
    try:
        return _manifest_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a valid manifest ({error!r}). {how}") from error


def write_manifest(path: str | os.PathLike, manifest: Manifest) -> None:
    """Writes a manifest atomically."""
    fields = dataclasses.asdict(manifest)
    if manifest.scene_bands is None:
        del fields["scene_bands"]
    columns = [fields.pop(name) for name in ("names", "colours", "pixels_per_class")]
    classes = [
        {"id": label, "name": name, "colour": colour, "pixels": pixels}
        for label, (name, colour, pixels) in enumerate(zip(*columns, strict=True))
    ]
    content = {"split": manifest.split, "num_examples": manifest.num_examples, "classes": classes}
    text = json.dumps({**content, **fields}, indent=1, ensure_ascii=False) + "\n"
    files.write_text(path, text)


def _manifest_from_json(content: dict) -> Manifest:
    classes = content["classes"]
    manifest = Manifest(
        split=content["split"],
        names=tuple(entry["name"] for entry in classes),
        colours=tuple(tuple(entry["colour"]) for entry in classes),
        ignore_label=content["ignore_label"],
        shards=tuple(Shard(**shard) for shard in content["shards"]),
        pixels_per_class=tuple(entry["pixels"] for entry in classes),
        pixels_ignored=content["pixels_ignored"],
        tool=content["tool"],
        arguments=content["arguments"],
        skipped=tuple(content.get("skipped", ())),
        # Manifests of earlier versions do not have these.
        masks_are=content.get("masks_are", "ids"),
        mask_colours=tuple(map(tuple, content.get("mask_colours", ()))),
        scene_bands=SceneBands.from_json(content["scene_bands"])
        if "scene_bands" in content
        else None,
    )
    manifest.label_set()  # Raises an error if the classes are invalid.
    if manifest.num_examples != content["num_examples"]:
        raise ValueError("`num_examples` is not the sum of the examples of the shards")
    return manifest


def shard_paths(data_dir: str | os.PathLike, manifest: Manifest) -> list[Path]:
    """Returns the paths of the shards of a split in order, after checking their sizes.

    Raises:
        UserError: If a shard is missing or its size is not that in the manifest.
    """
    paths = [Path(data_dir) / shard.name for shard in manifest.shards]
    for path, shard in zip(paths, manifest.shards, strict=True):
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            received = "no file" if size is None else f"{size} bytes"
            convert = _HOW_TO_CONVERT.format(data_dir=data_dir, split=manifest.split)
            raise UserError(
                f"Shard {path} must have {shard.bytes} bytes. Received: {received}. Check the "
                f"split with: python -m tfrecords_tools.check_records --data_dir={data_dir}. "
                f"{convert}"
            )
    return paths
