"""Whole networks: parameters, multiply-adds, time of a forward pass and a step, peak memory."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import keras
import numpy as np

from kseg.benchmark import table, timing
from kseg.benchmark.runner import Benchmark
from kseg.inference import counting
from kseg.models import CONTEXTS, MODELS, Segmenter
from kseg.visualization.progress import progress_bar

_TORSO = {"model": "deeplab_v3_plus", "backbone": "mobilenet_v2", "decoder": False}

# Group -> name -> a network: builder and its arguments. The others of a group are compared with
# its first.
GROUPS = {
    "contexts": {
        name: {**_TORSO, "context": name} for name in ("aspp", *sorted(set(CONTEXTS) - {"aspp"}))
    },
    "dfp": {f"depth {d}": {"model": "dfp_fcn", "depth": d} for d in (5, 4, 3, 2, 1, 0)},
    "output_stride": {
        f"output stride {stride}": {**_TORSO, "context": "ksac", "output_stride": stride}
        for stride in (16, 8)
    },
}
# Group -> (batch, height, width) of its images: a small crop where context modules are compared,
# the papers' crops where their measurements are repeated.
SHAPES = {"contexts": (2, 257, 257), "dfp": (1, 512, 512), "output_stride": (1, 513, 513)}


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    """The cost of one network. The setting is its group and the size of the images."""

    network: str = table.column("name within the group")
    parameters: int = table.column("trainable parameters", ",")
    multiply_adds: int = table.column("of one image forward", table.millions)
    forward_ms: table.Quartiles = table.column("median (quartiles), networks take turns", ".1f")
    forward_ratio: float = table.column("median over that of the first row", ".2f")
    step_ms: table.Quartiles = table.column("of a training step, likewise", ".1f")
    step_ratio: float = table.column("median over that of the first row", ".2f")
    memory_mib: float = table.column("peak of a process that takes two training steps", ".0f")
    step_memory_mib: float = table.column("how much of it the steps added", ".0f")


def build(variant: dict) -> Segmenter:
    """Builds a network of `GROUPS` with random weights and 21 classes."""
    options = dict(variant)
    return MODELS[options.pop("model")](21, **options)


def training_step(network: Segmenter, shape: tuple[int, ...]) -> Callable[[], object]:
    """Returns a function that takes one SGD step on random images `(batch, height, width)`."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (*shape, 3)).astype("float32")
    labels = random.integers(0, network.num_classes, shape)
    network.compile(
        optimizer=keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return lambda: network.train_on_batch(images, labels)


def step(variant: dict, shape: tuple[int, ...]) -> Callable[[], object]:
    """Returns the step whose memory `timing.peak_memory` measures."""
    return training_step(build(variant), shape)


def measure(*, repetitions: int, only: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[Row]:
    """Yields the rows of some groups."""
    for group in only or GROUPS:
        batch, height, width = size = shape or SHAPES[group]
        setting = f"{group}: {height}x{width}, batch {batch}"
        yield from _measure_group(setting, GROUPS[group], size, repetitions)


def _measure_group(
    setting: str, variants: dict[str, dict], shape: tuple[int, ...], repetitions: int
) -> Iterator[Row]:
    networks = {name: build(variant) for name, variant in variants.items()}
    images = np.zeros((*shape, 3), "float32")
    forward = {
        name: functools.partial(network.predict_on_batch, images)
        for name, network in networks.items()
    }
    steps = {name: training_step(network, shape) for name, network in networks.items()}
    forward_ms = timing.interleaved_ms(forward, repetitions)
    step_ms = timing.interleaved_ms(steps, repetitions)
    first = next(iter(networks))
    for name, network in progress_bar(networks.items(), desc="memory", leave=False):
        peak, added = timing.peak_memory(step, variants[name], shape)
        yield Row(
            setting=setting,
            network=name,
            parameters=counting.parameters(network),
            multiply_adds=counting.cost(network, (1, *shape[1:], 3)).multiply_adds,
            forward_ms=forward_ms[name],
            forward_ratio=forward_ms[name][1] / forward_ms[first][1],
            step_ms=step_ms[name],
            step_ratio=step_ms[name][1] / step_ms[first][1],
            memory_mib=peak,
            step_memory_mib=added,
        )


BENCHMARK = Benchmark(row=Row, measure=measure, choices=tuple(GROUPS))
