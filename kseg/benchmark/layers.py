"""Layers compared with their plain forms: time, memory, and how far the results differ."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import keras

from kseg.benchmark import steps, table, timing
from kseg.benchmark.layer_forms import MODULES, Case, Form, parts_of, whole_module
from kseg.benchmark.runner import Benchmark
from kseg.inference import counting

# Features of Xception or ResNet at output stride 16 of a 513 crop with KSAC's best rates; those
# of MobileNetV2 of a 225 and of a 513 crop, with three rates and with five.
CASES = (
    Case("ksac", (1, 33, 33, 2048), (1, 6, 12, 18, 24)),
    Case("ksac", (16, 15, 15, 320), (3, 6, 9)),
    Case("ksac", (16, 15, 15, 320), (1, 3, 6, 9, 12)),
    Case("ksac", (8, 33, 33, 320), (6, 12, 18)),
    Case("ksac", (8, 33, 33, 320), (1, 6, 12, 18, 24)),
    Case("vortex", (1, 33, 33, 2048)),
    Case("vortex", (1, 65, 65, 2048)),
    *(Case(name, (1, 33, 33, 2048)) for name in MODULES if name not in ("ksac", "vortex")),
)
_NOTES = """Forms:
plain        the textbook form, by the fastest operation that the backend has
keras        KSAC by the convolution of Keras layers
fast         the form in kseg.layers; aspp, ppm and none have no other
conv, stack  the rivals of GCN in its tables 2 to 4, which compute something else
Parts:
one rate     plain and keras compute a single 3x3 convolution at rate 1, fast all rates
more rates   the fast convolution at all rates and at the three after the smallest; KSAC of more is
             the whole module likewise"""


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    """One form of one part of a module, in one direction. The setting is the case."""

    part: str = table.column("part of the module; module is the whole")
    passes: str = table.column("forward or forward+backward")
    form: str = table.column("see below")
    ms: table.Quartiles = table.column("median (quartiles), the forms take turns", ".2f")
    ratio: float = table.column("median over that of the fast form, or of three rates", ".2f")
    # Of the module only the outputs are compared: gradients jump where a ReLU is at its kink.
    difference: float | None = table.column(
        "largest |fast - form| over largest |form| of outputs and gradients; module: outputs",
        ".1e",
    )
    multiply_adds: int | None = table.column(
        "of one forward pass, counted on TensorFlow only", table.millions
    )
    parameters: int | None = table.column("trainable parameters of the module", ",")
    memory_mib: float | None = table.column(
        "peak of a process that takes two training steps of the module; of a GPU if there is one",
        ".0f",
    )


def measure(
    *,
    repetitions: int,
    only: tuple[str, ...],
    shape: tuple[int, ...],
    precision: tuple[str, ...] = ("float32",),
    jit_compile: str = "auto",
    cases: Iterable[Case] = CASES,
) -> Iterator[Row]:
    """Yields the rows of all cases; `shape` replaces the sizes of the cases."""
    cases = [case for case in cases if not only or case.module in only]
    if shape:
        cases = dict.fromkeys(dataclasses.replace(case, shape=shape) for case in cases)
    xla = steps.compiles(jit_compile)
    for case in cases:
        for dtype in precision:
            yield from _compare(dataclasses.replace(case, dtype=dtype), repetitions, xla)


def _compare(case: Case, repetitions: int, xla: bool) -> Iterator[Row]:
    parts, modules = parts_of(case)
    for part in [*parts, whole_module(case, modules)]:
        is_whole = part.name == "module"
        compared = slice(1) if is_whole else slice(None)
        for backward in (False, True):
            calls = {
                name: timing.compiled(form.call, form.tensors, backward, xla)
                for name, form in part.forms.items()
            }
            results = {name: call()[compared] for name, call in calls.items()}
            times = timing.interleaved_ms(calls, repetitions)
            for name, form in part.forms.items():
                differs = part.comparable and name != part.base
                memory = None
                if backward and is_whole:
                    memory = timing.peak_memory(step, case, name, xla)[0]
                yield Row(
                    setting=str(case),
                    dtype=case.dtype,
                    xla=xla,
                    part=part.name,
                    passes="forward+backward" if backward else "forward",
                    form=name,
                    ms=times[name],
                    ratio=times[name][1] / times[part.base][1],
                    difference=timing.difference(results[name], results[part.base])
                    if differs
                    else None,
                    multiply_adds=_multiply_adds(form),
                    parameters=counting.parameters(modules[name]) if is_whole else None,
                    memory_mib=memory,
                )


def _multiply_adds(form: Form) -> int | None:
    if keras.config.backend() != "tensorflow":
        return None
    return counting.cost(functools.partial(form.call, form.tensors, False)).multiply_adds


def step(case: Case, form: str, xla: bool) -> Callable[[], list]:
    """Returns the step whose memory `timing.peak_memory` measures: both passes of one form."""
    _, modules = parts_of(case)
    whole = whole_module(case, {form: modules[form]}).forms[form]
    return timing.compiled(whole.call, whole.tensors, backward=True, xla=xla)


BENCHMARK = Benchmark(
    row=Row,
    measure=measure,
    axes=("batch", "height", "width", "channels"),
    choices=tuple(MODULES),
    options=("precision", "jit_compile"),
    on_jax=True,
    notes=_NOTES,
)
