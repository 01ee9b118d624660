"""Whole networks: parameters, multiply-adds, time of a forward pass and a step, peak memory."""

import dataclasses
from collections.abc import Callable, Iterator

import keras

from kseg.benchmark import steps, table, timing
from kseg.benchmark.device import POLICIES
from kseg.benchmark.runner import Benchmark
from kseg.inference import counting
from kseg.models import CONTEXTS, MODELS
from kseg.runs.assembly import dtype_policy
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
    multiply_adds: int | None = table.column(
        "of one image forward, counted on TensorFlow only", table.millions
    )
    forward_ms: table.Quartiles = table.column("median (quartiles), networks take turns", ".1f")
    forward_ratio: float = table.column("median over that of the first row", ".2f")
    step_ms: table.Quartiles = table.column("of a training step, likewise", ".1f")
    step_ratio: float = table.column("median over that of the first row", ".2f")
    memory_mib: float = table.column(
        "peak of a process that takes two training steps; of a GPU if there is one", ".0f"
    )
    step_memory_mib: float = table.column("how much of it the steps added", ".0f")


def build(variant: dict) -> keras.Model:
    """Builds a network of `GROUPS` with random weights and 21 classes."""
    options = dict(variant)
    return MODELS[options.pop("model")](21, **options)


def step(
    variant: dict, shape: tuple[int, ...], dtype: str = "float32", xla: bool = False
) -> Callable[[], object]:
    """Returns a training step on random images `(batch, height, width)`, compiled by the recipe."""
    with dtype_policy(POLICIES[dtype]):
        network = build(variant)
        steps.compile_by_recipe(network, xla)
    images, labels = steps.random_images(shape), steps.random_labels(shape)
    return steps.training_step(network, images, labels, xla)


def measure(
    *,
    repetitions: int,
    only: tuple[str, ...],
    shape: tuple[int, ...],
    precision: tuple[str, ...] = ("float32",),
    jit_compile: str = "auto",
) -> Iterator[Row]:
    """Yields the rows of some groups."""
    xla = steps.compiles(jit_compile)
    for group in only or GROUPS:
        for dtype in precision:
            yield from _measure_group(group, shape or SHAPES[group], repetitions, dtype, xla)


def _measure_group(
    group: str, shape: tuple[int, ...], repetitions: int, dtype: str, xla: bool
) -> Iterator[Row]:
    variants = GROUPS[group]
    with dtype_policy(POLICIES[dtype]):
        networks = {name: build(variant) for name, variant in variants.items()}
    images = steps.random_images(shape)
    forward_ms = timing.interleaved_ms(
        {name: steps.forward(network, images, xla) for name, network in networks.items()},
        repetitions,
    )
    step_ms = timing.interleaved_ms(
        {name: step(variant, shape, dtype, xla) for name, variant in variants.items()}, repetitions
    )
    first = next(iter(networks))
    for name, network in progress_bar(networks.items(), desc="memory", leave=False):
        peak, added = timing.peak_memory(step, variants[name], shape, dtype, xla)
        cost = None
        if keras.config.backend() == "tensorflow":
            cost = counting.cost(network, (1, *shape[1:], 3)).multiply_adds
        yield Row(
            setting=f"{group}: {shape[1]}x{shape[2]}, batch {shape[0]}",
            dtype=dtype,
            xla=xla,
            network=name,
            parameters=counting.parameters(network),
            multiply_adds=cost,
            forward_ms=forward_ms[name],
            forward_ratio=forward_ms[name][1] / forward_ms[first][1],
            step_ms=step_ms[name],
            step_ratio=step_ms[name][1] / step_ms[first][1],
            memory_mib=peak,
            step_memory_mib=added,
        )


BENCHMARK = Benchmark(
    row=Row,
    measure=measure,
    choices=tuple(GROUPS),
    options=("precision", "jit_compile"),
    on_jax=True,
)
