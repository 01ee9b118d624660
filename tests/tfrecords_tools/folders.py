"""Small raw folders for the tests of the converters."""

from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.datasets import voc_palette


def image(path: Path, size: tuple[int, int] = (12, 9), seed: int = 0, mode: str = "RGB") -> Path:
    """Writes a picture of noise; `size` is (width, height), the format that of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def mask(path: Path, ids: np.ndarray | int = 0, size: tuple[int, int] = (12, 9)) -> Path:
    """Writes a palette mask with VOC's colours; an int as `ids` fills the mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.broadcast_to(np.uint8(ids), np.shape(ids) or size[::-1]).copy())
    picture = picture.convert("L")
    picture.putpalette([value for colour in voc_palette() for value in colour])
    picture.save(path)
    return path


def voc(root: Path, ids: dict[str, list[str]]) -> Path:
    """Writes a folder in VOC's layout: list name -> image ids; masks hold ids 0, 15 and 255."""
    for split, names in ids.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
        for number, name in enumerate(names):
            image(root / "JPEGImages" / f"{name}.jpg", seed=number)
            labels = np.zeros((9, 12), np.uint8)
            labels[2:4], labels[5], labels[7, 0] = 15, 255, number % 21
            mask(root / "SegmentationClass" / f"{name}.png", labels)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too, with its bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
