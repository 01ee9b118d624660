"""The measurements of kseg: kernels and modules, networks, and the training program."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
from keras import ops

from kseg.benchmark import device, plain, steps, timing, train
from kseg.benchmark.device import POLICIES
from kseg.benchmark.gpu import tasks
from kseg.benchmark.gpu.tasks import Settings, Task
from kseg.benchmark.layer_forms import Case, Form, averages, parts_of, whole_module
from kseg.layers.kernels import forms
from kseg.layers.kernels.depthwise_conv import depthwise_conv
from kseg.models import deeplab_v3_plus
from kseg.runs.assembly import dtype_policy

# Name of a network -> arguments of `deeplab_v3_plus` besides the context. The rates of the papers
# are for output stride 16.
NETWORKS = {
    "xception_65": {"backbone": "xception_65"},
    "mobilenet_v2": {"backbone": "mobilenet_v2"},
    "resnet50": {"backbone": "resnet50"},
    "resnet50_os8": {"backbone": "resnet50", "output_stride": 8, "dilation_rates": (12, 24, 36)},
}
# A form of a network -> further arguments.
_FORMS = {
    "ksac": {"context": "ksac"},
    tasks.SAME_AS_SMP: {
        "context": "aspp",
        "separable": True,
        "decoder_convs": 1,
        "decoder_separable": True,
    },
    "aspp": {"context": "aspp"},
}
_CHANNELS = 2048
_RATES = {tasks.FIVE_RATES: (1, 6, 12, 18, 24), tasks.THREE_RATES: (6, 12, 18)}
# The lines are LKSPP's longest.
_DEPTHWISE = {tasks.DEPTHWISE: [(3, 3)], tasks.LINES: [(1, 16), (16, 1)]}
# Other forms of the averages over large windows.
_AVERAGES = {
    tasks.TWO_POOLINGS: plain.line_average_pool,
    tasks.PREFIX_SUMS: plain.prefix_sum_average_pool,
}


def kernels(task: Task, settings: Settings) -> Iterator[dict]:
    """Yields the row of a kernel or module on features of output stride 16."""
    side = (settings.size - 1) // 16 + 1
    shape = (settings.batch, side, side, _CHANNELS)
    form = _form(task, shape)
    call = timing.compiled(form.call, form.tensors, task.passes != tasks.FORWARD, task.xla)
    yield {"images": "x".join(map(str, shape)), "ms": _quartiles(call, settings)}


def _form(task: Task, shape: tuple[int, ...]) -> Form:
    if task.form == tasks.ROUNDED:
        return _rounded(_form(dataclasses.replace(task, form="kseg"), shape))
    fast = "fast" if task.form == "kseg" else task.form
    if task.what in _DEPTHWISE:
        return _depthwise(shape, task)
    if task.what in ("average_pool", "module Vortex"):
        case = Case("vortex", shape, dtype=task.dtype)
        if task.form in _AVERAGES:
            return averages(case, _of_large_windows(_AVERAGES[task.form]))
    else:
        rates = _RATES.get(task.what, _RATES[tasks.FIVE_RATES])
        case = Case("ksac", shape, rates, dtype=task.dtype)
    parts, modules = _parts(case)
    if task.what.startswith("module"):
        return whole_module(case, {fast: modules[fast]}).forms[fast]
    name = {"average_pool": "poolings", tasks.ONE_CONV: "one rate"}.get(task.what, "shared conv")
    return next(part for part in parts if part.name == name).forms[fast]


# The forms of one module are measured one after the other.
_parts = functools.lru_cache(maxsize=1)(parts_of)


def _rounded(form: Form) -> Form:
    """The form in which products in half precision are rounded before they are added."""

    def call(tensors, training):
        # Without XLA they always are; a CPU that truncates would have the inputs in float32.
        with forms.assumed(xla=False, truncates=False):
            return form.call(tensors, training)

    return Form(call, form.tensors)


def _of_large_windows(pool: Callable) -> Callable:
    """Leaves small windows to the backend's pooling."""

    def average(features, size):
        own = size > forms.LARGEST_POOLED_WINDOW  # Otherwise kseg's form is the backend's, too.
        return (pool if own else plain.plain_average_pool)(features, size)

    return average


def _depthwise(shape: tuple[int, ...], task: Task) -> Form:
    random = np.random.default_rng(0)
    tensors = [
        ops.cast(random.normal(size=size).astype("float32"), task.dtype)
        for size in (shape, *((*window, shape[-1], 1) for window in _DEPTHWISE[task.what]))
    ]

    def call(tensors, training):
        features, *windows = tensors
        if task.form == "kseg":
            return [depthwise_conv(features, window, training=training) for window in windows]
        return [ops.depthwise_conv(features, window, padding="same") for window in windows]

    return Form(call, tensors)


def networks(task: Task, settings: Settings) -> Iterator[dict]:
    """Yields the row of a forward pass or a training step of a network."""
    memory = device.PeakMemory()
    images = steps.random_images(settings.shape)
    with dtype_policy(POLICIES[task.dtype]):
        network = deeplab_v3_plus(train.CLASSES, **_FORMS[task.form], **NETWORKS[task.what])
        if task.passes == tasks.STEP:
            steps.compile_by_recipe(network, task.xla)
    if task.passes == tasks.STEP:
        labels = steps.random_labels(settings.shape, train.CLASSES)
        call = steps.training_step(network, images, labels, task.xla)
    else:
        call = steps.forward(network, images, task.xla)
    ms = _quartiles(call, settings)
    yield {**_rate(settings, ms), "memory_mib": memory.mib}


def program(task: Task, settings: Settings) -> Iterator[dict]:
    """Yields the rows of the bare step and of `python -m kseg.train`."""
    options = {**NETWORKS[task.what], **_FORMS[task.form]}
    times = train.step_ms(
        settings.shape,
        1,
        dtype=task.dtype,
        xla=task.xla,
        network=options,
        log_every=settings.log_every,
    )
    for name, ms in times.items():
        yield {"form": name, **_rate(settings, ms)}


def _quartiles(call, settings: Settings) -> tuple:
    times = timing.interleaved_ms(
        {"": call},
        settings.repetitions,
        block_seconds=settings.block_seconds,
    )
    return times[""]


def _rate(settings: Settings, ms: tuple) -> dict:
    return {
        "images": "x".join(map(str, settings.shape)),
        "ms": ms,
        "images_per_second": 1000 * settings.batch / ms[1],
    }


MEASUREMENTS = {"kernels": kernels, "networks": networks, "train": program}
