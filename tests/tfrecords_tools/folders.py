"""Small raw folders for the tests of the converters, and label readers for worker processes.

There is no TensorFlow here, so that the readers can find out whether a worker has loaded it.
"""

import os
import signal
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.checked_images import BadInput
from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.masks import CLASS_IDS
from tfrecords_tools.inputs import Sample


def image(path: Path, size: tuple[int, int] = (12, 9), seed: int = 0, mode: str = "RGB") -> Path:
    """Writes an image of noise. `size` is (width, height); the name gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def mask(path: Path, ids: np.ndarray | int = 0, size: tuple[int, int] = (12, 9)) -> Path:
    """Writes a palette mask with VOC's colours. If `ids` is an int, it fills the mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.broadcast_to(np.uint8(ids), np.shape(ids) or size[::-1]).copy())
    picture = picture.convert("L")
    picture.putpalette([value for colour in voc_palette() for value in colour])
    picture.save(path)
    return path


def png(width: int, height: int, depth: int = 8, colour_type: int = 0, rows: bytes = b"") -> bytes:
    """Returns a PNG file with this header, whatever its rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def voc(root: Path, ids: dict[str, list[str]]) -> Path:
    """Writes a folder in VOC's layout from the ids of each list; masks hold 0, 15 and 255."""
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
    """Returns the bytes of every file in a folder and its folders, hidden ones included."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def pairs(root: Path, names: list[str], size: tuple[int, int] = (12, 9)) -> list[Sample]:
    """Writes images and masks of class 0 and one more class, and returns their samples."""
    samples = []
    for number, name in enumerate(names):
        labels = np.zeros(size[::-1], np.uint8)
        labels[1] = 1 + number % 20
        samples.append(
            Sample(
                name,
                image(root / "images" / f"{name}.jpg", size, seed=number),
                mask(root / "masks" / f"{name}.png", labels),
            )
        )
    return samples


def modification_times(paths):
    """Returns the modification time of each file by its name."""
    return {path.name: path.stat().st_mtime_ns for path in paths}


def problems_of(error: Exception | str) -> list[str]:
    """Returns the problems in an error or its message: the lines after the first."""
    return [line.strip() for line in str(error).splitlines()[1:]]


def assert_each_in_one(expected: list[tuple[str, ...]], problems: list[str]) -> None:
    """Asserts that each tuple of texts occurs in one problem, and that there are no others."""
    found = [
        [all(text in problem for text in texts) for problem in problems].count(True)
        for texts in expected
    ]
    assert dict(zip(expected, found, strict=True)) == dict.fromkeys(expected, 1)
    assert len(problems) == len(expected), problems


def read_without_tensorflow(path: Path, label_set: LabelSet) -> np.ndarray:
    """A label reader that rejects every mask if TensorFlow is loaded."""
    if "tensorflow" in sys.modules:
        raise BadInput(path, "TensorFlow is loaded")
    return CLASS_IDS(path, label_set)


def read_and_die(path: Path, label_set: LabelSet) -> np.ndarray:
    """A label reader whose process is killed at the mask `c`, as if memory ran out."""
    if path.stem == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return CLASS_IDS(path, label_set)


def read_and_fail(path: Path, label_set: LabelSet) -> np.ndarray:
    """A label reader with a bug."""
    raise ZeroDivisionError("a bug in the reader")


def read_value(label: tuple[str, int], label_set: LabelSet) -> np.ndarray:
    """A label reader for labels ("fill", id)."""
    return np.full((9, 12), label[1], np.uint8)
