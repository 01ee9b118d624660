"""Training input: images a second of reading, decoding and augmenting, and what limits them."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.benchmark import input_records, timing
from kseg.data import records
from kseg.data.augment import Augmentation
from kseg.data.mixture import epoch_records, open_mixture
from kseg.data.pipeline import train_dataset
from kseg.errors import UserError

SHAPE = (8, 513, 513)  # batch, height, width: the papers' crop
IMAGES = 1024  # of a pass, so that starting it is a small part of what is measured
_SPLIT = input_records.SPLIT
_PAD = (127.5, 127.5, 127.5)
# What costs next to nothing is counted in blocks (strings are moved into them, not copied), or
# counting would be most of what is measured.
_BLOCK = 16
_LIMIT = "decode"
_LEGEND = """read      the records as they lie in the shards (in the page cache, not on a cold disk)
parse     the same and taken apart into image, label and name
jpeg      the images decoded from memory, nothing else
decode    images and labels decoded from memory: the physical limit of the pipeline
ours      kseg.data.pipeline.train_dataset: read, shuffle, decode, augment, batch
textbook  the same in the usual order: decode all, resize all, pad, crop and flip, in float
images/s  median (lower..upper quartile), the stages taking turns
CPU ms    of an image, over all cores: what other work on the machine disturbs less
ratio     throughput over that of decode; then the same by CPU time"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: A name of `STAGES`.
        images_per_second: Quartiles (lower, median, upper).
        cpu_ms: Milliseconds of processor time an image, over all cores; quartiles.
        ratio: Median throughput over that of decoding image and label; None without it.
        cpu_ratio: The same by processor time.
    """

    stage: str
    images_per_second: tuple[float, float, float]
    cpu_ms: tuple[float, float, float]
    ratio: float | None
    cpu_ratio: float | None


def run(
    repetitions: int = 9,
    output: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
    data_dir: str = "",
    split: str = "train",
    images: int = IMAGES,
) -> list[Row]:
    """Measures the stages of training input, prints a table and a verdict, returns the rows.

    Args:
        repetitions: Times that each stage goes through the images, after one that is not counted.
        output: `.csv` or `.json` file to write the rows to as well; none if empty.
        only: Names of `STAGES`; all if empty.
        shape: (batch, height, width) of the crops; (8, 513, 513) if empty.
        data_dir: Folder of records to measure with; if empty, pictures as large and as detailed as
            VOC's photographs are drawn.
        split: Split of `data_dir`.
        images: Records of a pass; those of the split are repeated.

    Raises:
        UserError: A stage is not known, or there are no such records.
    """
    timing.check_output(output)
    for name in only:
        if name not in STAGES:
            raise UserError(f"`--only` must hold names of {', '.join(STAGES)}. Received: {name!r}")
    if shape and len(shape) != 3:
        raise UserError(f"`--shape` must be batch,height,width. Received: {shape!r}")
    batch, *crop_size = shape or SHAPE
    if images < batch:
        raise UserError(f"`images` must be at least a batch, {batch}. Received: {images}")
    cores = len(os.sched_getaffinity(0))
    print(_LEGEND)
    with tempfile.TemporaryDirectory(prefix="kseg_benchmark_") as folder:
        examples = (
            input_records.stored(data_dir, split, images) if data_dir else input_records.drawn()
        )
        size = sum(map(len, examples)) / len(examples)
        input_records.write(Path(folder), examples, images)
        print(
            f"\n{images} records of {size / 1024:.0f} KiB on average from "
            f"{f'{split!r} of {data_dir}' if data_dir else 'drawn pictures'}, "
            f"batch {batch}, crop {crop_size[0]}x{crop_size[1]}, {cores} cores"
        )
        setting = _Setting(folder, batch, tuple(crop_size), cores, images)
        drains = {
            name: _drain(stage(setting))
            for name, stage in STAGES.items()
            if not only or name in only
        }
        rows = _rows(_measure(drains, repetitions), images)
    _print(rows, batch)
    if output:
        timing.write(output, rows)
    return rows


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What the stages are measured with."""

    data_dir: str
    batch_size: int
    crop_size: tuple[int, int]
    cores: int
    images: int

    def records(self) -> tf.data.Dataset:
        """(index, serialised record), shuffled as for training."""
        mixture = open_mixture(self.data_dir, _SPLIT)
        # A buffer much smaller than the pass: reading goes on beside decoding, as in a long epoch.
        return epoch_records(mixture, seed=0, epoch=0, shuffle_buffer=self.images // 8 + 1)

    def in_memory(self) -> tf.data.Dataset:
        """The encoded image and label of each record, read once."""
        parsed = self.map(self.records(), lambda _, one: records.parse_example(one))
        return parsed.cache()

    def map(self, dataset, function: Callable) -> tf.data.Dataset:
        return dataset.map(function, num_parallel_calls=self.cores, deterministic=True)


def _read(setting: _Setting) -> tf.data.Dataset:
    return setting.records().batch(_BLOCK)


def _parse(setting: _Setting) -> tf.data.Dataset:
    # In blocks, since starting a function for each record costs more than taking it apart; in the
    # pipeline the function that decodes a record takes it apart as well.
    keys = (records.IMAGE, records.LABEL, records.FILENAME)
    features = {key: tf.io.FixedLenFeature([], tf.string) for key in keys}
    return setting.map(_read(setting), lambda _, block: tf.io.parse_example(block, features))


def _jpeg(setting: _Setting) -> tf.data.Dataset:
    return setting.map(setting.in_memory(), lambda one: records.decode_image(one["image"]))


def _decode(setting: _Setting) -> tf.data.Dataset:
    return setting.map(
        setting.in_memory(),
        lambda one: (records.decode_image(one["image"]), records.decode_label(one["label"])),
    )


def _ours(setting: _Setting) -> tf.data.Dataset:
    return train_dataset(
        setting.data_dir,
        _SPLIT,
        batch_size=setting.batch_size,
        crop_size=setting.crop_size,
        pad_value=_PAD,
        seed=0,
        epoch=0,
        shuffle_buffer=setting.images // 8 + 1,
        parallel_calls=setting.cores,
    )


def _textbook(setting: _Setting) -> tf.data.Dataset:
    how = Augmentation(crop_size=setting.crop_size, pad_value=_PAD)
    crop_height, crop_width = how.crop_size
    scales = np.arange(how.min_scale, how.max_scale + 1e-6, how.scale_step, np.float32)

    def example(index, serialized):
        one = records.decode_example(serialized)
        draws = tf.random.stateless_uniform([4], tf.stack([tf.constant(0, tf.int64), index]))
        scale = tf.gather(scales, tf.cast(draws[0] * len(scales), tf.int32))
        image = tf.cast(one["image"], tf.float32)
        size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * scale, tf.int32)
        image = tf.image.resize(image, size)
        label = tf.image.resize(one["label"][..., tf.newaxis], size, method="nearest")
        below, right = tf.unstack(tf.maximum(how.crop_size - size, 0))
        image = tf.pad(image - _PAD, [[0, below], [0, right], [0, 0]]) + _PAD
        label = tf.pad(label, [[0, below], [0, right], [0, 0]], constant_values=how.ignore_label)
        room = tf.cast(tf.shape(label)[:2] - how.crop_size + 1, tf.float32)
        top, left = tf.unstack(tf.cast(draws[1:3] * room, tf.int32))
        image = image[top : top + crop_height, left : left + crop_width]
        label = label[top : top + crop_height, left : left + crop_width]
        return tf.cond(
            draws[3] < 0.5,
            lambda: (tf.image.flip_left_right(image), tf.image.flip_left_right(label)),
            lambda: (image, label),
        )

    examples = setting.map(setting.records(), example)
    return examples.batch(setting.batch_size, drop_remainder=True).prefetch(2)


# Name -> a function of the setting that gives a dataset over all records.
STAGES = {
    "read": _read,
    "parse": _parse,
    "jpeg": _jpeg,
    _LIMIT: _decode,
    "ours": _ours,
    "textbook": _textbook,
}


def _drain(dataset: tf.data.Dataset) -> Callable:
    """A function that goes through a dataset once, within TensorFlow."""

    # Traced at once, so that making one for each stage does not look like tracing anew.
    return tf.function(
        lambda: dataset.reduce(np.int64(0), lambda count, *_: count + 1)
    ).get_concrete_function()


def _measure(drains: dict[str, Callable], repetitions: int) -> dict[str, np.ndarray]:
    """Seconds of wall clock and of processor `[repetitions, 2]` of each stage, taking turns."""
    for drain in drains.values():
        drain()
    taken = {name: [] for name in drains}
    for _ in range(repetitions):
        for name, drain in drains.items():
            wall, processor = time.perf_counter(), time.process_time()
            drain()
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: np.array(times) for name, times in taken.items()}


def _rows(taken: dict[str, np.ndarray], images: int) -> list[Row]:
    medians = {name: np.median(times, axis=0) for name, times in taken.items()}
    limit = medians.get(_LIMIT, (None, None))
    return [
        Row(
            stage=name,
            images_per_second=tuple(np.percentile(images / times[:, 0], (25, 50, 75))),
            cpu_ms=tuple(np.percentile(1000 * times[:, 1] / images, (25, 50, 75))),
            ratio=_LIMIT in taken and limit[0] / medians[name][0] or None,
            cpu_ratio=_LIMIT in taken and limit[1] / medians[name][1] or None,
        )
        for name, times in taken.items()
    ]


def _print(rows: list[Row], batch: int) -> None:
    print(f"\n{'stage':<10}{'images/s':>26}{'CPU ms':>24}{'ratio':>8}{'CPU':>7}")
    for row in rows:
        ratios = "".join(
            f"{'-' if ratio is None else f'{ratio:.2f}':>{width}}"
            for ratio, width in ((row.ratio, 8), (row.cpu_ratio, 7))
        )
        print(
            f"{row.stage:<10}{timing.spread(row.images_per_second):>26}"
            f"{_milliseconds(row.cpu_ms):>24}{ratios}"
        )
    for line in verdict(rows, batch):
        print(line)


def _milliseconds(quartiles: tuple[float, float, float]) -> str:
    lower, median, upper = quartiles
    return f"{median:.2f} ({lower:.2f}..{upper:.2f})"


def verdict(rows: list[Row], batch: int) -> list[str]:
    """Lines that say what limits the input, and what network it can feed; none where unmeasured."""
    found = {row.stage: row for row in rows}
    if not {"parse", _LIMIT, "ours"} <= set(found):
        return []
    cpu = {stage: row.cpu_ms[1] for stage, row in found.items()}
    rate = found["ours"].images_per_second[1]
    parts = {
        "reading and parsing": cpu["parse"],
        "decoding": cpu[_LIMIT],
        "augmenting and batching": max(cpu["ours"] - cpu["parse"] - cpu[_LIMIT], 0.0),
    }
    largest = max(parts, key=parts.get)
    shares = ", ".join(f"{part} {100 * ms / cpu['ours']:.0f} %" for part, ms in parts.items())
    lines = [
        "",
        f"{largest} limits the input. Of its processor time: {shares}",
        f"reading and parsing cost {100 * cpu['parse'] / cpu[_LIMIT]:.1f} % of decoding",
        f"a step of {batch} images that takes more than {1000 * batch / rate:.0f} ms never waits "
        f"for this machine's input ({rate:.0f} images/s)",
    ]
    if "textbook" in found:
        times = rate / found["textbook"].images_per_second[1]
        cpu_times = cpu["textbook"] / cpu["ours"]
        lines.append(f"ours over textbook: {times:.2f} times (by CPU time {cpu_times:.2f})")
    return lines
