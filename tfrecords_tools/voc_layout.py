"""The layout of PASCAL VOC 2012, which `build_voc` and `build_sbd` read."""

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kseg.data.checked_images import BadInput
from kseg.data.names import comparable
from kseg.errors import UserError
from tfrecords_tools import layouts, lists
from tfrecords_tools.inputs import IMAGE_SUFFIXES, Sample

LISTS = Path("ImageSets") / "Segmentation"
IMAGES = "JPEGImages"
LABELS = "SegmentationClass"
# Splits that have images in common by definition.
MAY_SHARE = (
    ("train", "trainval"),
    ("val", "trainval"),
    ("train", "trainaug"),
    ("trainval", "trainaug"),
)


def require(raw_dir: Path, label_dir: str = LABELS) -> None:
    """Raises `UserError` unless a folder has lists, images and masks."""
    layouts.require_layout(raw_dir, (LISTS, IMAGES, label_dir), "VOC")


def read_list(raw_dir: Path, split: str, problems: list[str]) -> list[str]:
    """Returns the ids of a split; `problems` receives the lines that are not ids."""
    path = raw_dir / LISTS / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in (raw_dir / LISTS).glob("*.txt"))) or "none"
        raise UserError(f"`splits`: no list of split {split!r}. Not found: {path}. Lists: {known}")
    return lists.read_names(path, problems)


def image_path(raw_dir: Path, name: str) -> Path:
    """Returns the image of an id: the .jpg, .jpeg or .png that exists, else the .jpg.

    Raises:
        BadInput: If there are several.
    """
    return _find(raw_dir / IMAGES, name, (".jpg", ".jpeg", ".png"))


def samples(
    raw_dir: Path, names: Iterable[str], problems: list[str], label_dir: str = LABELS
) -> list[Sample]:
    """Returns the samples of ids, with the masks in `label_dir`.

    Args:
        raw_dir: The folder in VOC's layout.
        names: The ids.
        problems: Receives a message for each id with several images or masks, and each that is the
            name of a file, which are left out.
        label_dir: Folder of the masks in `raw_dir`. Defaults to `SegmentationClass`.
    """
    found = []
    for name in names:
        try:
            mask = _find(raw_dir / label_dir, name, (".png",))
            image = image_path(raw_dir, name)
            if name.lower().endswith(IMAGE_SUFFIXES) and not image.exists():
                raise BadInput(
                    image,
                    f"there is no id {name!r}; a list must hold ids, which are "
                    "names without the ending",
                )
            found.append(Sample(name, image, mask))
        except BadInput as problem:
            problems.append(str(problem))
    return found


def _find(folder: Path, name: str, endings: Sequence[str]) -> Path:
    """Returns the file of an id, whatever the case of its ending, else the path that is missing."""
    found = _names(folder, modified=folder.stat().st_mtime_ns)
    paths = [folder / known for ending in endings for known in found.get(f"{name}{ending}", ())]
    if len(paths) > 1:
        others = " and ".join(map(str, paths[1:]))
        raise BadInput(paths[0], f"id {name!r} occurs twice, also as {others}")
    return paths[0] if paths else folder / f"{name}{endings[0]}"


@functools.lru_cache(4)
def _names(folder: Path, modified: int) -> dict[str, list[str]]:
    """Returns the names in a folder by their comparable form, see `names.comparable`.

    Args:
        folder: The folder.
        modified: Its modification time, by which the cache notices that the folder has changed.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        found.setdefault(comparable(name), []).append(name)
    return found
