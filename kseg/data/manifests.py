"""The manifest of a split, and the names of its files.

The files of a split are

    <split>-00000-of-0000N.tfrecord   N shards
    <split>.manifest.json             written last, so that a split without it is not finished
"""

import dataclasses
import json
import os
import re
from pathlib import Path

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError

MANIFEST_SUFFIX = ".manifest.json"
_SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.tfrecord")
_HOW_TO_FINISH = (
    "Its shards exist. If another tool wrote them, add the manifest with: python -m "
    "tfrecords_tools.build_manifest --data_dir={data_dir} --splits={split} --dataset=voc "
    "(or another data set, or --classes)"
)
_HOW_TO_CONVERT = (
    "Convert with: python -m tfrecords_tools.build_voc --raw_dir=VOCdevkit/VOC2012 "
    "--output_dir={data_dir} --splits={split} (build_sbd makes trainaug, build_folder takes other "
    "folders of images and masks)"
)


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

    def locate(self, index: int) -> tuple[Shard, int]:
        """Returns the shard of an example and its number there, both counted from 0.

        Args:
            index: Number of the example in the split.

        Raises:
            IndexError: If the split has fewer examples.
        """
        for shard in self.shards:
            if index < shard.examples:
                return shard, index
            index -= shard.examples
        raise IndexError(f"`index` must be below {self.num_examples}")

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
        finished = finished_splits(data_dir)
        known = ", ".join(finished) or "none"
        shards = map(parse_shard_name, os.listdir(data_dir))
        if any(parts and parts[0] == split for parts in shards):
            how = f"{_HOW_TO_FINISH.format(data_dir=data_dir, split=split)}. {how}"
        elif finished:
            tool = read_manifest(data_dir, finished[0]).tool
            how = f"{tool} made {finished[0]!r}; with --splits={split} it makes this one"
        elif inner := {path.parent.name for path in Path(data_dir).glob(f"*/*{MANIFEST_SUFFIX}")}:
            how = f"Folders with splits in it: {', '.join(sorted(inner))}"
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


def open_split(data_dir: str | os.PathLike, split: str) -> tuple[Manifest, list[Path]]:
    """Returns the manifest of a split and the paths of its shards in order.

    Args:
        data_dir: Folder of the shards.
        split: Name of the split. It may start with a subfolder of `data_dir`, as in voc/val.

    Raises:
        UserError: If the split is not finished, or a shard is missing or incomplete.
    """
    folder, name = resolve_split(data_dir, split)
    manifest = read_manifest(folder, name)
    return manifest, shard_paths(folder, manifest)
