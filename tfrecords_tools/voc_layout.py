"""The layout of PASCAL VOC 2012, which `build_voc` and `build_sbd` read."""

from pathlib import Path

from kseg.errors import UserError
from tfrecords_tools import layouts, lists
from tfrecords_tools.inputs import Sample

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
    """Returns the image of an id: the first of .jpg, .jpeg and .png that exists, else the .jpg."""
    candidates = [raw_dir / IMAGES / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def sample(raw_dir: Path, name: str, label_dir: str = LABELS) -> Sample:
    """Returns the sample of an id, with the mask in `label_dir`."""
    return Sample(name, image_path(raw_dir, name), raw_dir / label_dir / f"{name}.png")
