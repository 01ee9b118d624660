"""Whole networks: parameters, multiply-adds, time of a forward pass and a step, peak memory."""

import dataclasses
import functools

import keras
import numpy as np
from tqdm import tqdm

from kseg.benchmark import timing
from kseg.errors import UserError
from kseg.inference import counting
from kseg.inference.backend import require_tensorflow
from kseg.models import CONTEXTS, MODELS

_TORSO = {"model": "deeplab_v3_plus", "backbone": "mobilenet_v2", "decoder": False}

# Group -> name -> a network: builder and its arguments. The first of a group is what the others
# are compared with.
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
# Group -> (batch, height, width) of its images: a small crop for what is compared by its context,
# the papers' crops for what they measured.
SHAPES = {"contexts": (2, 257, 257), "dfp": (1, 512, 512), "output_stride": (1, 513, 513)}
_LEGEND = """parameters     trainable
multiply-adds  of one image forward, counted on the traced graph
times          median (lower..upper quartile) in ms, the networks taking turns
memory         peak of a process of its own over two training steps, and what the steps added
ratio          over the first row of the group"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Of the network within its group.
        parameters: Trainable ones.
        multiply_adds: Of one image.
        forward_ms, step_ms: Quartiles (lower, median, upper).
        memory_mib: Peak resident memory of a process that takes two training steps.
        step_memory_mib: How much of it the steps added to the built network.
    """

    name: str
    parameters: int
    multiply_adds: int
    forward_ms: tuple[float, float, float]
    step_ms: tuple[float, float, float]
    memory_mib: float
    step_memory_mib: float


def build(variant: dict) -> keras.Model:
    """Builds a network of `GROUPS` with random weights and 21 classes."""
    options = dict(variant)
    return MODELS[options.pop("model")](21, **options)


def training_step(network: keras.Model, shape: tuple[int, ...]):
    """A function that takes one step of SGD on random images; shape: `(batch, height, width)`."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (*shape, 3)).astype("float32")
    labels = random.integers(0, 21, shape)
    network.compile(
        optimizer=keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return lambda: network.train_on_batch(images, labels)


def step(variant: dict, shape: list[int]):
    """What `timing.peak_memory` measures."""
    return training_step(build(variant), tuple(shape))


def run(
    repetitions: int = 9,
    output: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
) -> list[Row]:
    """Measures the networks of some groups, prints a table of each and returns the rows.

    Args:
        repetitions: Times that each call is measured, after one that is not.
        output: `.csv` or `.json` file to write the rows to as well; none if empty.
        only: Names of `GROUPS`; all if empty.
        shape: (batch, height, width) of the images; that of the group if empty.

    Raises:
        UserError: Keras does not run on TensorFlow, whose graphs the counts are read off; a group
            is not known; a network's process failed.
    """
    require_tensorflow("`--what=models`")
    timing.check_output(output)
    for group in only:
        if group not in GROUPS:
            raise UserError(f"`--only` must hold names of {', '.join(GROUPS)}. Received: {group!r}")
    if shape and len(shape) != 3:
        raise UserError(f"`--shape` must be batch,height,width. Received: {shape!r}")
    print(_LEGEND)
    rows = []
    for group in only or GROUPS:
        sizes = shape or SHAPES[group]
        found = _measure(GROUPS[group], sizes, repetitions)
        batch, height, width = sizes
        _print(found, f"{group}: {height}x{width}, batch {batch}")
        rows += [dataclasses.replace(row, name=f"{group}: {row.name}") for row in found]
    if output:
        timing.write(output, rows)
    return rows


def _measure(variants: dict[str, dict], shape: tuple[int, ...], repetitions: int) -> list[Row]:
    networks = {name: build(variant) for name, variant in variants.items()}
    images = np.zeros((*shape, 3), "float32")
    forward = {
        name: functools.partial(network.predict_on_batch, images)
        for name, network in networks.items()
    }
    steps = {name: training_step(network, shape) for name, network in networks.items()}
    forward_ms = timing.interleaved_ms(forward, repetitions)
    step_ms = timing.interleaved_ms(steps, repetitions)
    rows = []
    for name, network in tqdm(networks.items(), desc="memory", leave=False):
        peak, added = timing.peak_memory(__name__, variant=variants[name], shape=shape)
        multiply_adds = counting.cost(network, (1, *shape[1:], 3)).multiply_adds
        times = (forward_ms[name], step_ms[name])
        rows.append(Row(name, counting.parameters(network), multiply_adds, *times, peak, added))
    return rows


def _print(rows: list[Row], title: str) -> None:
    print(f"\n{title}")
    print(
        f"{'network':<20}{'parameters':>12}{'multiply-adds':>15}{'forward ms':>26}{'ratio':>7}"
        f"{'step ms':>30}{'ratio':>7}{'memory MiB':>16}"
    )
    first = rows[0]
    for row in rows:
        memory = f"{row.memory_mib:.0f} ({row.step_memory_mib:.0f})"
        print(
            f"{row.name:<20}{row.parameters:>12,}{row.multiply_adds / 1e6:>13,.0f} M"
            f"{timing.spread(row.forward_ms):>26}{row.forward_ms[1] / first.forward_ms[1]:>7.2f}"
            f"{timing.spread(row.step_ms):>30}{row.step_ms[1] / first.step_ms[1]:>7.2f}{memory:>16}"
        )
