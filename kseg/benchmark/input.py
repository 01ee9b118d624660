"""Training input: images per second of reading, decoding and augmenting, and what limits them."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.benchmark import device, input_records, table, timing
from kseg.benchmark.runner import Benchmark
from kseg.data import damage, records
from kseg.data.augment import Augmentation
from kseg.data.mixture import epoch_records, open_mixture
from kseg.data.pipeline import train_dataset
from kseg.errors import UserError

SHAPE = (8, 513, 513)  # batch, height, width: the papers' crop
IMAGES = 1024  # of one pass, so that starting it is a small part of the time
_SPLIT = input_records.SPLIT
_PAD = (127.5, 127.5, 127.5)
# Cheap stages are counted in blocks (strings are moved into them, not copied); otherwise the
# counting would dominate the time.
_BLOCK = 16
STAGES = ("read", "parse", "jpeg", "decode", "ours", "textbook")
_LIMIT = "decode"
_NOTES = """Stages:
read      the records as they lie in the shards (in the page cache, not on a cold disk)
parse     the same, parsed into image, label and name
jpeg      the images decoded from memory, nothing else
decode    images and labels decoded from memory: the physical limit of the pipeline
ours      kseg.data.pipeline.train_dataset: read, shuffle, decode, augment, batch
textbook  the same in the usual order: decode all, resize all, pad, crop and flip, in float"""


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    """One stage of the input. The setting is the records and the crops."""

    stage: str = table.column("see below")
    images_per_second: table.Quartiles = table.column(
        "median (quartiles), stages take turns", ".1f"
    )
    # Processor time depends less on other work of the machine.
    cpu_ms: table.Quartiles = table.column("processor time of an image over all cores", ".2f")
    ratio: float | None = table.column("median throughput over that of decode", ".2f")
    cpu_ratio: float | None = table.column("the same by processor time", ".2f")


def measure(
    *,
    repetitions: int,
    only: tuple[str, ...],
    shape: tuple[int, ...],
    data_dir: str = "",
    split: str = "train",
    images: int = IMAGES,
) -> Iterator[Row]:
    """Yields the rows of the chosen stages.

    Args:
        repetitions: How often each stage reads the images.
        only: Names of `STAGES`.
        shape: (batch, height, width) of the crops.
        data_dir: Folder of shards to measure with; if empty, pictures are drawn that are as large
            and as detailed as VOC's photographs.
        split: Split of `data_dir`.
        images: Records of one pass; those of the split are repeated.
    """
    batch, *crop_size = shape or SHAPE
    if images < batch:
        raise UserError(f"`images` must be at least a batch, {batch}. Received: {images}")
    cores = device.cores()
    with (
        damage.reported(data_dir, (split,) if data_dir else ()),
        tempfile.TemporaryDirectory(prefix="kseg_benchmark_") as folder,
    ):
        examples = (
            input_records.stored(data_dir, split, images) if data_dir else input_records.drawn()
        )
        size = sum(map(len, examples)) / len(examples)
        input_records.write(Path(folder), examples, images)
        source = f"{split!r} of {data_dir}" if data_dir else "drawn pictures"
        stages = _Stages(folder, batch, tuple(crop_size), cores, images)
        passes = {name: _pass(getattr(stages, name)()) for name in only or STAGES}
        times = timing.interleaved_times(passes, repetitions)
    setting = (
        f"{images} records of {size / 1024:.0f} KiB on average from {source}, "
        f"batch {batch}, crop {crop_size[0]}x{crop_size[1]}, {cores} cores"
    )
    limit = np.median(times[_LIMIT], axis=0) if _LIMIT in times else None
    for stage, seconds in times.items():
        ratios = (None, None) if limit is None else limit / np.median(seconds, axis=0)
        yield Row(
            setting=setting,
            dtype="",
            xla=None,
            stage=stage,
            images_per_second=timing.quartiles(images / seconds[:, 0]),
            cpu_ms=timing.quartiles(1000 * seconds[:, 1] / images),
            ratio=ratios[0],
            cpu_ratio=ratios[1],
        )


@dataclasses.dataclass(frozen=True)
class _Stages:
    """The stages of the input: each method returns a dataset over all records."""

    data_dir: str
    batch_size: int
    crop_size: tuple[int, int]
    cores: int
    images: int

    def read(self) -> tf.data.Dataset:
        return self._records().batch(_BLOCK)

    def parse(self) -> tf.data.Dataset:
        # In blocks, since calling a function for each record costs more than parsing it; in the
        # pipeline the function that decodes a record parses it as well.
        keys = (records.IMAGE, records.LABEL, records.FILENAME)
        features = {key: tf.io.FixedLenFeature([], tf.string) for key in keys}
        return self._map(self.read(), lambda _, block: tf.io.parse_example(block, features))

    def jpeg(self) -> tf.data.Dataset:
        return self._map(self._in_memory(), lambda record: records.decode_image(record["image"]))

    def decode(self) -> tf.data.Dataset:
        def decode(record):
            return records.decode_image(record["image"]), records.decode_label(record["label"])

        return self._map(self._in_memory(), decode)

    def ours(self) -> tf.data.Dataset:
        return train_dataset(
            self.data_dir,
            _SPLIT,
            batch_size=self.batch_size,
            crop_size=self.crop_size,
            pad_value=_PAD,
            seed=0,
            epoch=0,
            shuffle_buffer=self._shuffle_buffer,
            parallel_calls=self.cores,
        )

    def textbook(self) -> tf.data.Dataset:
        options = Augmentation(crop_size=self.crop_size, pad_value=_PAD)
        crop_height, crop_width = options.crop_size
        scales = np.arange(
            options.min_scale, options.max_scale + 1e-6, options.scale_step, np.float32
        )

        def example(index, serialized):
            record = records.decode_example(serialized)
            draws = tf.random.stateless_uniform([4], tf.stack([tf.constant(0, tf.int64), index]))
            scale = tf.gather(scales, tf.cast(draws[0] * len(scales), tf.int32))
            image = tf.cast(record["image"], tf.float32)
            size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * scale, tf.int32)
            image = tf.image.resize(image, size)
            label = tf.image.resize(record["label"][..., tf.newaxis], size, method="nearest")
            below, right = tf.unstack(tf.maximum(options.crop_size - size, 0))
            paddings = [[0, below], [0, right], [0, 0]]
            image = tf.pad(image - _PAD, paddings) + _PAD
            label = tf.pad(label, paddings, constant_values=options.ignore_label)
            room = tf.cast(tf.shape(label)[:2] - options.crop_size + 1, tf.float32)
            top, left = tf.unstack(tf.cast(draws[1:3] * room, tf.int32))
            image = image[top : top + crop_height, left : left + crop_width]
            label = label[top : top + crop_height, left : left + crop_width]
            return tf.cond(
                draws[3] < 0.5,
                lambda: (tf.image.flip_left_right(image), tf.image.flip_left_right(label)),
                lambda: (image, label),
            )

        examples = self._map(self._records(), example)
        return examples.batch(self.batch_size, drop_remainder=True).prefetch(2)

    @property
    def _shuffle_buffer(self) -> int:
        # Much smaller than the pass: reading goes on beside decoding, as in a long epoch.
        return self.images // 8 + 1

    def _records(self) -> tf.data.Dataset:
        """(index, serialised record), shuffled as for training."""
        mixture = open_mixture(self.data_dir, _SPLIT)
        return epoch_records(mixture, seed=0, epoch=0, shuffle_buffer=self._shuffle_buffer)

    def _in_memory(self) -> tf.data.Dataset:
        """The encoded image and label of each record, read once."""
        parsed = self._map(self._records(), lambda _, record: records.parse_example(record))
        return parsed.cache()

    def _map(self, dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
        return dataset.map(function, num_parallel_calls=self.cores, deterministic=True)


def _pass(dataset: tf.data.Dataset) -> Callable:
    """A function that reads a dataset once, inside TensorFlow."""
    # Traced at once: TensorFlow warns of functions that are made in a loop and traced later.
    return tf.function(
        lambda: dataset.reduce(np.int64(0), lambda count, *_: count + 1)
    ).get_concrete_function()


def conclusion(rows: list[Row]) -> str:
    """Returns what limits the input, and which networks it can feed; empty if not measured."""
    measured = {row.stage: row for row in rows}
    if not {"parse", _LIMIT, "ours"} <= set(measured):
        return ""
    cpu = {stage: row.cpu_ms[1] for stage, row in measured.items()}
    rate = measured["ours"].images_per_second[1]
    parts = {
        "reading and parsing": cpu["parse"],
        "decoding": cpu[_LIMIT],
        "augmenting and batching": max(cpu["ours"] - cpu["parse"] - cpu[_LIMIT], 0.0),
    }
    largest = max(parts, key=parts.get)
    percents = ", ".join(f"{part} {100 * ms / cpu['ours']:.0f} %" for part, ms in parts.items())
    lines = [
        f"\nThe input is limited by {largest}. Of its processor time: {percents}",
        f"reading and parsing cost {100 * cpu['parse'] / cpu[_LIMIT]:.1f} % of decoding",
        f"a training step that takes more than {1000 / rate:.1f} ms per image never waits for the "
        f"input of this machine ({rate:.0f} images/s)",
    ]
    if "textbook" in measured:
        times = rate / measured["textbook"].images_per_second[1]
        cpu_times = cpu["textbook"] / cpu["ours"]
        lines.append(f"ours over textbook: {times:.2f} times (by CPU time {cpu_times:.2f})")
    return "\n".join(lines)


BENCHMARK = Benchmark(
    row=Row,
    measure=measure,
    choices=STAGES,
    options=("data_dir", "split"),
    on_jax=True,
    notes=_NOTES,
    conclude=conclusion,
)
