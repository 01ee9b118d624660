"""The record form: one example in, the same example out, and the manifest beside the shards.

The keys are those of the official DeepLab (`build_data.py`), so that its shards are read as they
are and ours by its reader. The original bytes of an image are kept; a label map is a PNG of one
channel whose pixel values are class ids. A split is

    <split>-00000-of-0000N.tfrecord   N shards
    <split>.manifest.json             written last: without it a split is not finished

TensorFlow is imported by the functions that need it: the worker processes of a conversion load this
module through their converter, and TensorFlow would cost each of them half a GB.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kseg import files
from kseg.data.datasets import LabelSet
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
    "Its shards are there; if another tool wrote them: python -m tfrecords_tools.build_manifest "
    "--data_dir={data_dir} --splits={split} --dataset=voc (or another name, or --classes)"
)
_HOW_TO_CONVERT = (
    "Convert with: python -m tfrecords_tools.build_voc --raw_dir=VOC2012 --output_dir={data_dir} "
    "--splits={split} (or tfrecords_tools.build_folder for any folder of images and masks)"
)


def encode_example(
    *, image: bytes, image_format: str, label: bytes, height: int, width: int, filename: str
) -> bytes:
    """Serialises one example; the same arguments always give the same bytes.

    Args:
        image: bytes of a JPEG or PNG file.
        image_format: `"jpeg"` or `"png"`.
        label: bytes of a PNG file of one channel, its values class ids.
        height: rows of image and label, in pixels.
        width: columns of image and label, in pixels.
        filename: name of the example, such as `2007_000033`.

    Returns:
        A serialised `tf.train.Example`.
    """
    import tensorflow as tf

    if image_format not in ("jpeg", "png"):
        raise ValueError(f'`image_format` must be "jpeg" or "png". Received: {image_format!r}')

    def text(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def number(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    feature = {
        IMAGE: text(image),
        IMAGE_FORMAT: text(image_format.encode()),
        FILENAME: text(filename.encode()),
        HEIGHT: number(height),
        WIDTH: number(width),
        CHANNELS: number(3),
        LABEL: text(label),
        LABEL_FORMAT: text(b"png"),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # A protobuf map has no order of its own: without this the bytes would change between runs.
    return example.SerializeToString(deterministic=True)


def decode_example(serialized: "tf.Tensor") -> "dict[str, tf.Tensor]":
    """Decodes what `encode_example` or the official tools wrote; works in graph mode.

    Args:
        serialized: string scalar, a serialised `tf.train.Example`.

    Returns:
        `image` uint8 (height, width, 3) RGB, `label` uint8 (height, width), `filename` string.
    """
    encoded = parse_example(serialized)
    return {
        "image": decode_image(encoded["image"]),
        "label": decode_label(encoded["label"]),
        "filename": encoded["filename"],
    }


def parse_example(serialized: "tf.Tensor") -> "dict[str, tf.Tensor]":
    """The encoded `image`, the encoded `label` and the `filename` of an example, not decoded."""
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
    """Decodes a JPEG or PNG file into RGB: the one decoder of pipeline, prediction and export.

    Pixels come as they are stored: an EXIF orientation is not applied, alpha is dropped, grey is
    repeated. JPEG uses the accurate inverse transform, so the pixels are also those of Pillow;
    TensorFlow's default differs in most of them.

    Args:
        contents: string scalar, the bytes of the file.

    Returns:
        uint8 tensor (height, width, 3).
    """
    import tensorflow as tf

    image = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(contents, channels=3),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_label(contents: "tf.Tensor") -> "tf.Tensor":
    """Decodes a PNG of one channel into class ids, uint8 (height, width).

    Not for palette PNGs, of which TensorFlow gives the luminance: the converters read those.
    """
    import tensorflow as tf

    return tf.squeeze(tf.io.decode_png(contents, channels=1), axis=-1)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records: its name in the folder, and what must be in it."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a finished conversion of one split holds.

    Args:
        split: name of the split.
        names: class names in the order of their ids.
        colours: (red, green, blue) of each class.
        ignore_label: id of the pixels that count for nothing.
        shards: the files, in order.
        pixels_per_class: label pixels of each class over the split.
        pixels_ignored: label pixels that are `ignore_label`.
        tool: program that wrote the shards.
        arguments: what it was given.
        skipped: what was bad in the input and left out, a line each, with file and reason.
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

    @property
    def num_examples(self) -> int:
        return sum(shard.examples for shard in self.shards)

    def label_set(self) -> LabelSet:
        return LabelSet(self.names, self.colours, self.ignore_label)


def shard_name(split: str, index: int, count: int) -> str:
    """File name of shard `index` (from 0) of `count`."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def parse_shard_name(name: str) -> tuple[str, int, int] | None:
    """(split, index, count) of a shard's file name; None for the name of anything else."""
    match = _SHARD.fullmatch(name)
    return match and (match["split"], int(match["index"]), int(match["count"]))


def locate(data_dir: str | os.PathLike, split: str) -> tuple[Path, str]:
    """Folder and name of a split; `voc/train` is train in the folder voc of `data_dir`."""
    path = Path(data_dir) / split
    return path.parent, path.name


def manifest_path(data_dir: str | os.PathLike, split: str) -> Path:
    """Where the manifest of a split lies."""
    return Path(data_dir) / f"{split}{MANIFEST_SUFFIX}"


def finished_splits(data_dir: str | os.PathLike) -> list[str]:
    """Names of the splits in a folder that have a manifest, sorted."""
    names = (path.name for path in Path(data_dir).glob(f"[!.]*{MANIFEST_SUFFIX}"))
    return sorted(name.removesuffix(MANIFEST_SUFFIX) for name in names)


def read_manifest(data_dir: str | os.PathLike, split: str) -> Manifest:
    """Reads the manifest of a split, see `locate`.

    Raises:
        UserError: the folder or the split is not there (with the splits that are, and the command
            that makes one), or the manifest cannot be understood.
    """
    data_dir, split = locate(data_dir, split)
    how = _HOW_TO_CONVERT.format(data_dir=data_dir, split=split)
    if not Path(data_dir).is_dir():
        raise UserError(f"`data_dir` must be a folder of records. Not found: {data_dir}. {how}")
    path = manifest_path(data_dir, split)
    if not path.is_file():
        known = ", ".join(finished_splits(data_dir)) or "none"
        shards = map(parse_shard_name, os.listdir(data_dir))
        if any(parts and parts[0] == split for parts in shards):
            how = f"{_HOW_TO_FINISH.format(data_dir=data_dir, split=split)}. {how}"
        raise UserError(f"no finished split {split!r} in {data_dir}; splits there: {known}. {how}")
    try:
        return _manifest_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no manifest of records ({error!r}). {how}") from error


def write_manifest(path: str | os.PathLike, manifest: Manifest) -> None:
    """Writes a manifest so that a reader sees either all of it or what was there before."""
    fields = dataclasses.asdict(manifest)
    classes = [
        {"id": label, "name": name, "colour": colour, "pixels": pixels}
        for label, (name, colour, pixels) in enumerate(
            zip(
                fields.pop("names"),
                fields.pop("colours"),
                fields.pop("pixels_per_class"),
                strict=True,
            )
        )
    ]
    content = {"split": manifest.split, "num_examples": manifest.num_examples, "classes": classes}
    text = json.dumps({**content, **fields}, indent=1, ensure_ascii=False) + "\n"
    files.write_text(path, text)


def _manifest_from_json(content: dict) -> Manifest:
    classes = content["classes"]
    manifest = Manifest(
        split=content["split"],
        names=tuple(one["name"] for one in classes),
        colours=tuple(tuple(one["colour"]) for one in classes),
        ignore_label=content["ignore_label"],
        shards=tuple(Shard(**shard) for shard in content["shards"]),
        pixels_per_class=tuple(one["pixels"] for one in classes),
        pixels_ignored=content["pixels_ignored"],
        tool=content["tool"],
        arguments=content["arguments"],
        skipped=tuple(content.get("skipped", ())),
    )
    manifest.label_set()
    if manifest.num_examples != content["num_examples"]:
        raise ValueError("`num_examples` is not the sum over the shards")
    return manifest


def shard_paths(data_dir: str | os.PathLike, manifest: Manifest) -> list[Path]:
    """Paths of the shards of a split, in order, each there and as long as the manifest says.

    Raises:
        UserError: a shard is missing or of another length.
    """
    paths = [Path(data_dir) / shard.name for shard in manifest.shards]
    for path, shard in zip(paths, manifest.shards, strict=True):
        found = path.stat().st_size if path.is_file() else None
        if found != shard.bytes:
            raise UserError(
                f"shard {path} must have {shard.bytes} bytes; "
                + ("it is missing" if found is None else f"it has {found}")
                + f". See python -m tfrecords_tools.check_records --data_dir={data_dir}. "
                + _HOW_TO_CONVERT.format(data_dir=data_dir, split=manifest.split)
            )
    return paths
