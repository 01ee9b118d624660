"""Reads records as training reads them, and finds what is wrong with them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kseg.cli.start import start_tensorflow
from kseg.data import records
from kseg.data.checked_images import open_image, stored_bits
from kseg.data.mask_files import LOSSY

# Bytes around each record: its length (8) and two checksums (4 each).
_FRAME = 16


def read(path: Path) -> Iterator[tuple[int, bytes | str]]:
    """Yields (index, record) of a shard; if its framing is broken, (index, reason) ends it."""
    start_tensorflow()
    import tensorflow as tf

    iterator = iter(tf.data.TFRecordDataset(str(path)))
    index = size = 0
    while True:
        try:
            serialized = next(iterator).numpy()
        except StopIteration:
            # TensorFlow takes a remainder that is shorter than a header for the end of the file.
            left = path.stat().st_size - size
            if left:
                yield index, f"damaged or truncated ({left} bytes after the last complete record)"
            return
        except tf.errors.DataLossError as error:
            reason = error.message.split("}}")[-1].split(" [Op")[0].strip()
            yield index, f"damaged or truncated ({reason})"
            return
        yield index, serialized
        index += 1
        size += len(serialized) + _FRAME


def decode(serialized: bytes) -> tuple[str, np.ndarray, np.ndarray]:
    """Returns the name, image and label of a record.

    Raises:
        ValueError: If the record is not valid; the message says why.
    """
    import tensorflow as tf

    try:
        encoded = records.parse_example(serialized)
    except tf.errors.InvalidArgumentError:
        raise ValueError(
            f"not a serialised example with {records.IMAGE!r} and {records.LABEL!r}"
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
            f"label of {name!r} is {label.shape[1]}x{label.shape[0]}, but its image is "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    feature = tf.train.Example.FromString(serialized).features.feature
    for key, size in ((records.HEIGHT, image.shape[0]), (records.WIDTH, image.shape[1])):
        recorded = list(feature[key].int64_list.value[:1]) if key in feature else [size]
        if recorded != [size]:
            value = recorded[0] if recorded else "empty"
            raise ValueError(f"{key!r} of {name!r} is {value}, but its image has {size}")
    return name, image, label


def _check_header(what: str, name: str, contents: bytes) -> None:
    """Checks the header, before TensorFlow allocates memory or stretches bits."""
    image = open_image(f"{what} of {name!r}", contents)
    bits = stored_bits(image, contents)
    if what == "label" and image.format in LOSSY:
        raise ValueError(f"label of {name!r} is {image.format}, which does not keep ids: use PNG")
    if what == "label" and (image.mode != "L" or bits != 8):
        raise ValueError(
            f"label of {name!r} is {image.mode} of {bits} bits, not one channel of 8 bits"
        )
