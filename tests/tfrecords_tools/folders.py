"""Small raw folders for the tests of the converters, and label readers for worker processes.

No TensorFlow here, so that the readers can tell whether a worker has loaded it.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.datasets import voc_palette
from tfrecords_tools import inputs


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
    """Every file of a folder and the folders in it, hidden ones too, with its bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def pairs(root: Path, names: list[str], size: tuple[int, int] = (12, 9)) -> list[inputs.Sample]:
    """Writes images and masks of class 0 and one other; gives their samples."""
    samples = []
    for number, name in enumerate(names):
        labels = np.zeros(size[::-1], np.uint8)
        labels[1] = 1 + number % 20
        samples.append(
            inputs.Sample(
                name,
                image(root / "images" / f"{name}.jpg", size, seed=number),
                mask(root / "masks" / f"{name}.png", labels),
            )
        )
    return samples


def read_without_tensorflow(path, label_set):
    """A label reader that refuses to run where TensorFlow is loaded."""
    if "tensorflow" in sys.modules:
        raise inputs.BadInput(path, "TensorFlow is loaded")
    return inputs.read_index_mask(path, label_set)


def read_and_die(path, label_set):
    """A label reader whose process is killed, as for want of memory, at the mask `c`."""
    if path.stem == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return inputs.read_index_mask(path, label_set)


def read_and_fail(path, label_set):
    """A label reader with a fault of its own."""
    raise ZeroDivisionError("a fault in the reader")


def read_value(label, label_set):
    """A label reader for labels ("fill", id)."""
    return np.full((9, 12), label[1], np.uint8)
