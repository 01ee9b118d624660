"""Records to measure the input with: those of a split, or pictures like VOC's photographs."""

import hashlib
import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from kseg.data import manifests, records
from kseg.data.datasets import VOC

SPLIT = "benchmark"
PICTURE_SIZE = (375, 500)  # height and width of most photographs of PASCAL VOC
_PICTURES = 32


def stored(data_dir: str, split: str, most: int) -> list[bytes]:
    """Returns the first records of a split, at most `most`.

    Raises:
        UserError: There is no such split.
    """
    _, paths = manifests.open_split(data_dir, split)
    return list(tf.data.TFRecordDataset(list(map(str, paths))).take(most).as_numpy_iterator())


def drawn() -> list[bytes]:
    """Returns records of drawn pictures whose JPEG and PNG files are about as large as VOC's."""
    rng = np.random.default_rng(0)
    height, width = PICTURE_SIZE
    examples = []
    for number in range(_PICTURES):
        light = _noise(rng, 1.3)
        colours = [light + 0.3 * _noise(rng, 1.5) for _ in range(3)]
        image = np.clip(50 * np.stack(colours, axis=-1) + 115, 0, 255).astype(np.uint8)
        shapes = _noise(rng, 2.0)
        label = np.where(shapes > 0.8, number % 20 + 1, 0).astype(np.uint8)
        label[np.abs(shapes - 0.8) < 0.04] = VOC.ignore_label
        files = io.BytesIO(), io.BytesIO()
        Image.fromarray(image).save(files[0], "JPEG", quality=91)
        Image.fromarray(label).save(files[1], "PNG")
        examples.append(
            records.encode_example(
                image=files[0].getvalue(),
                image_format="jpeg",
                label=files[1].getvalue(),
                height=height,
                width=width,
                filename=f"drawn_{number}",
            )
        )
    return examples


def _noise(rng: np.random.Generator, smoothness: float) -> np.ndarray:
    """Noise of variance 1 whose spectrum falls with the frequency, as that of photographs does."""
    height, width = PICTURE_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = rng.normal(size=(2, *frequency.shape))
    field = np.fft.irfft2((noise[0] + 1j * noise[1]) / frequency**smoothness, PICTURE_SIZE)
    return field / field.std()


def write(folder: Path, examples: list[bytes], images: int) -> None:
    """Writes shards of `images` records, repeating the examples."""
    shards = []
    numbers = np.array_split(np.arange(images), 4)
    for index, part in enumerate(numbers):
        path = folder / manifests.shard_name(SPLIT, index, len(numbers))
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in part:
                writer.write(examples[number % len(examples)])
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append(manifests.Shard(path.name, len(part), path.stat().st_size, sha256))
    manifest = manifests.Manifest(
        split=SPLIT,
        names=VOC.names,
        colours=VOC.colours,
        ignore_label=VOC.ignore_label,
        shards=tuple(shards),
        pixels_per_class=(0,) * VOC.num_classes,
        pixels_ignored=0,
        tool="kseg.benchmark.input",
        arguments={},
    )
    manifests.write_manifest(manifests.manifest_path(folder, SPLIT), manifest)
