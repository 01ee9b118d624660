"""Reads records back as training does, and tells what is wrong with them."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from kseg.data import records
from tfrecords_tools.decode import stored_bits

# Bytes that frame a record: its length (8) and two checksums (4 each).
_FRAME = 16


def read(path: Path) -> Iterator[tuple[int, bytes | str]]:
    """Yields (index, record) of a shard, and for the first of broken framing (index, reason)."""
    iterator = iter(tf.data.TFRecordDataset(str(path)))
    index = read = 0
    while True:
        try:
            serialized = next(iterator).numpy()
        except StopIteration:
            # TensorFlow takes a tail shorter than the head of a record for the end of the file.
            left = path.stat().st_size - read
            if left:
                yield index, f"damaged or truncated ({left} bytes after the last whole record)"
            return
        except tf.errors.DataLossError as error:
            yield (
                index,
                f"damaged or truncated ({error.message.split('}}')[-1].split(' [Op')[0].strip()})",
            )
            return
        yield index, serialized
        index += 1
        read += len(serialized) + _FRAME


def decode(serialized: bytes) -> tuple[str, np.ndarray, np.ndarray]:
    """Name, image and label of a record; `ValueError` tells what is wrong with it."""
    try:
        encoded = records.parse_example(serialized)
    except tf.errors.InvalidArgumentError:
        raise ValueError(
            f"no serialised example with {records.IMAGE!r} and {records.LABEL!r}"
        ) from None
    name = encoded["filename"].numpy().decode(errors="replace")
    decoded = {}
    for what, decoder in (("image", records.decode_image), ("label", records.decode_label)):
        _check_header(what, name, encoded[what].numpy())
        try:
            decoded[what] = decoder(encoded[what]).numpy()
        except tf.errors.InvalidArgumentError:
            raise ValueError(f"{what} of {name!r} cannot be decoded") from None
    image, label = decoded["image"], decoded["label"]
    if image.shape[:2] != label.shape:
        raise ValueError(
            f"label of {name!r} is {label.shape[1]}x{label.shape[0]}, its image "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    feature = tf.train.Example.FromString(serialized).features.feature
    for key, side in ((records.HEIGHT, image.shape[0]), (records.WIDTH, image.shape[1])):
        said = feature[key].int64_list.value[:1] if key in feature else [side]
        if list(said) != [side]:
            raise ValueError(f"{key!r} of {name!r} is {list(said)}, its image has {side}")
    return name, image, label


def _check_header(what: str, name: str, contents: bytes) -> None:
    """Judges what the header claims, before TensorFlow allocates it or stretches few bits to 8."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(contents)) as image:
                pixels = image.width * image.height
                mode, bits = image.mode, stored_bits(image, contents)
    except Image.DecompressionBombError:
        pixels = Image.MAX_IMAGE_PIXELS + 1
    except Exception:
        raise ValueError(f"{what} of {name!r} is not an image") from None
    if pixels > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{what} of {name!r} has more than {Image.MAX_IMAGE_PIXELS} pixels")
    if what == "label" and (mode != "L" or bits != 8):
        raise ValueError(
            f"label of {name!r} is {mode} of {bits} bits, not one channel of 8-bit ids"
        )
