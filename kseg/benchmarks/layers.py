"""Layers against their plain form: time, memory, and how far the results are apart."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from keras import ops

from kseg import counting
from kseg.benchmarks import plain, timing
from kseg.errors import UserError
from kseg.layers import GCN, KSAC, LKSPP, ConvStack, LargeKernelConv, VortexPooling
from kseg.layers.average_pool import average_pool
from kseg.layers.shared_atrous_conv import shared_atrous_conv
from kseg.models import CONTEXTS


@dataclasses.dataclass(frozen=True)
class Case:
    """A module at one size.

    Attributes:
        module: A name of `MODULES`.
        shape: (batch, height, width, channels) of the features.
        dilation_rates: Of KSAC; the other modules are measured as their papers have them.
        filters: Channels out.
    """

    module: str
    shape: tuple[int, int, int, int]
    dilation_rates: tuple[int, ...] = ()
    filters: int = 256

    def __str__(self) -> str:
        batch, height, width, channels = self.shape
        rates = f", rates {self.dilation_rates}" if self.dilation_rates else ""
        return f"{self.module}: {height}x{width}x{channels} -> {self.filters}, batch {batch}{rates}"


@dataclasses.dataclass(frozen=True)
class Part:
    """What is measured of a module, in its forms.

    Attributes:
        name: Of the part; "module" is the whole.
        calls: Form -> function of `training` that returns a list of tensors.
        tensors: Form -> what the backward pass differentiates for.
        comparable: Whether all forms compute the same.
        base: Form that the times of the others are over, and their results compared with.
    """

    name: str
    calls: dict[str, Callable]
    tensors: dict[str, list]
    comparable: bool = True
    base: str = "fast"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case, part, passes, form: What was measured; passes "forward" or "forward+backward".
        ms: Quartiles (lower, median, upper) of the milliseconds.
        ratio: The median over that of the base of its part: the fast form, or three rates.
        difference: Largest |fast - form| over largest |form|, of outputs and gradients; in the
            module of the outputs alone, since a gradient jumps where a ReLU is at its kink.
            None where there is nothing to compare.
        multiply_adds: Of one forward pass.
        parameters: Trainable ones of the module; None for a part.
        memory_mib: Peak of a process of its own over two training steps of the module, else None.
    """

    case: str
    part: str
    passes: str
    form: str
    ms: tuple[float, float, float]
    ratio: float
    difference: float | None
    multiply_adds: int
    parameters: int | None
    memory_mib: float | None


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
    Case("lkspp", (1, 33, 33, 2048)),
    Case("gcn", (1, 33, 33, 2048)),
    Case("aspp", (1, 33, 33, 2048)),
    Case("ppm", (1, 33, 33, 2048)),
    Case("none", (1, 33, 33, 2048)),
)
_LEGEND = """plain       what a textbook would write, by the fastest operation that TensorFlow has
keras       KSAC by the convolution of Keras layers
fast        what kseg.layers has; aspp, ppm and none have no other form
conv, stack the rivals of GCN in its tables 2 to 4, which compute something else
ms          median (lower..upper quartile), the forms taking turns
ratio       over the fast form; of five rates over three
difference  largest |fast - form| over largest |form|: outputs and gradients, in the module outputs
one rate    plain and keras have a single 3x3 convolution at rate 1, fast all rates
more rates  the fast conv at all rates and at the three after the smallest; then all of KSAC"""


def run(
    repetitions: int = 9,
    output: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
    cases: Iterable[Case] = CASES,
) -> list[Row]:
    """Compares modules with their plain forms, prints a table and returns its rows.

    Args:
        repetitions: Times that each call is measured, after one that is not.
        output: `.csv` or `.json` file to write the rows to as well; none if empty.
        only: Names of `MODULES` to measure; all if empty.
        shape: (batch, height, width, channels) to measure at, instead of the sizes of the cases.
        cases: What to compare.

    Raises:
        UserError: Keras does not run on TensorFlow, which the times are for; a name is not known.
    """
    counting.check_backend("`--what=layers` measures")
    timing.check_output(output)
    for name in only:
        if name not in MODULES:
            raise UserError(f"`--only` must hold names of {', '.join(MODULES)}. Received: {name!r}")
    if shape and len(shape) != 4:
        raise UserError(f"`--shape` must be batch,height,width,channels. Received: {shape!r}")
    cases = [case for case in cases if not only or case.module in only]
    if shape:
        cases = dict.fromkeys(dataclasses.replace(case, shape=shape) for case in cases)
    print(_LEGEND)
    rows = []
    for case in cases:
        print(f"\n{case}")
        print(
            f"{'part':<13}{'passes':<18}{'form':<7}{'ms':>24}{'ratio':>8}{'difference':>12}"
            f"{'multiply-adds':>15}{'parameters':>12}{'MiB':>7}",
            flush=True,
        )
        for row in _compare(case, repetitions):
            print(_line(row), flush=True)
            rows.append(row)
    if output:
        timing.write(output, rows)
    return rows


def _line(row: Row) -> str:
    difference = "-" if row.difference is None else f"{row.difference:.1e}"
    parameters = "-" if row.parameters is None else f"{row.parameters:,}"
    memory = "-" if row.memory_mib is None else f"{row.memory_mib:.0f}"
    return (
        f"{row.part:<13}{row.passes:<18}{row.form:<7}{timing.spread(row.ms):>24}{row.ratio:>8.2f}"
        f"{difference:>12}{row.multiply_adds / 1e6:>13,.0f} M{parameters:>12}{memory:>7}"
    )


def _compare(case: Case, repetitions: int) -> Iterator[Row]:
    parts, modules = MODULES[case.module](case)
    for part in [*parts, _whole(case, modules)]:
        whole = part.name == "module"
        for backward in (False, True):
            compiled = {
                form: timing.compiled(call, part.tensors[form], backward)
                for form, call in part.calls.items()
            }
            results = {form: call() for form, call in compiled.items()}
            times = timing.interleaved_ms(compiled, repetitions)
            compared = slice(1) if whole else slice(None)
            for form, call in part.calls.items():
                measured = backward and whole
                yield Row(
                    case=str(case),
                    part=part.name,
                    passes="forward+backward" if backward else "forward",
                    form=form,
                    ms=times[form],
                    ratio=times[form][1] / times[part.base][1],
                    difference=timing.difference(
                        results[form][compared], results[part.base][compared]
                    )
                    if part.comparable and form != part.base
                    else None,
                    multiply_adds=counting.cost(functools.partial(call, False)).multiply_adds,
                    parameters=counting.parameters(modules[form]) if whole else None,
                    memory_mib=_memory(case, form) if measured else None,
                )


def _memory(case: Case, form: str) -> float:
    return timing.peak_memory(__name__, case=dataclasses.asdict(case), form=form)[0]


def step(case: dict, form: str) -> Callable:
    """What `timing.peak_memory` measures: forward and backward of the module in one form."""
    case = Case(**{key: tuple(v) if isinstance(v, list) else v for key, v in case.items()})
    _, modules = MODULES[case.module](case)
    part = _whole(case, {form: modules[form]})
    return timing.compiled(part.calls[form], part.tensors[form], backward=True)


def _features(case: Case):
    random = np.random.default_rng(0)
    return ops.convert_to_tensor(random.normal(size=case.shape), "float32")


def _built(case: Case, modules: dict) -> dict:
    """The forms of a module, built and with the same weights."""
    first = next(iter(modules.values()))
    for module in modules.values():
        module.build(case.shape)
        module.set_weights(first.get_weights())
    return modules


def _whole(case: Case, modules: dict) -> Part:
    features = _features(case)
    return Part(
        "module",
        {
            form: lambda training, module=module: [module(features, training=training)]
            for form, module in modules.items()
        },
        {
            form: [features, *(variable.value for variable in module.trainable_variables)]
            for form, module in modules.items()
        },
        comparable="plain" in modules,
    )


def _ksac(case: Case) -> tuple[list[Part], dict]:
    forms = {
        "plain": plain.native_shared_atrous_conv,
        "keras": plain.plain_shared_atrous_conv,
        "fast": shared_atrous_conv,
    }
    options = {"dilation_rates": case.dilation_rates, "dropout_rate": 0.0}
    modules = {
        "plain": plain.PlainKSAC(case.filters, convolve=forms["plain"], **options),
        "keras": plain.PlainKSAC(case.filters, **options),
        "fast": KSAC(case.filters, **options),
    }
    _built(case, modules)
    features, kernel = _features(case), modules["fast"].kernel

    def convolution(convolve, rates):
        return lambda training: convolve(features, ops.convert_to_tensor(kernel), rates)

    def part(name, calls, **options):
        return Part(name, calls, dict.fromkeys(calls, [features, kernel.value]), **options)

    rates = case.dilation_rates
    shared = {form: convolution(convolve, rates) for form, convolve in forms.items()}
    one = {form: convolution(forms[form], (1,)) for form in ("plain", "keras")}
    parts = [
        part("shared conv", shared),
        part("one rate", {**one, "fast": shared["fast"]}, comparable=False),
    ]
    if len(rates) > 3:
        three, every = "3", str(len(rates))
        fewer = options | {"dilation_rates": tuple(sorted(rates)[1:4])}
        calls = {
            three: convolution(shared_atrous_conv, fewer["dilation_rates"]),
            every: shared["fast"],
        }
        small = _built(case, {three: KSAC(case.filters, **fewer)})
        whole = _whole(case, small | {every: modules["fast"]})
        parts += [
            part("more rates", calls, comparable=False, base=three),
            dataclasses.replace(whole, name="KSAC of more", comparable=False, base=three),
        ]
    return parts, modules


def _vortex(case: Case) -> tuple[list[Part], dict]:
    modules = {
        "plain": plain.PlainVortexPooling(case.filters, dropout_rate=0.0),
        "fast": VortexPooling(case.filters, dropout_rate=0.0),
    }
    _built(case, modules)
    features = _features(case)
    forms = {"plain": plain.plain_average_pool, "fast": average_pool}
    sizes = [rate for rate in modules["fast"].dilation_rates if rate > 1]
    pools = {
        form: lambda training, pool=pool: [pool(features, size) for size in sizes]
        for form, pool in forms.items()
    }
    return [Part("poolings", pools, dict.fromkeys(pools, [features]))], modules


def _lkspp(case: Case) -> tuple[list[Part], dict]:
    modules = {
        "plain": plain.PlainLKSPP(case.filters, dropout_rate=0.0),
        "fast": LKSPP(case.filters, dropout_rate=0.0),
    }
    _built(case, modules)
    features = _features(case)
    largest = len(modules["fast"].large_kernels) - 1
    fast, textbook = modules["fast"].large_kernels[largest], modules["plain"]
    calls = {
        "plain": lambda training: [textbook.branch(largest, features, training)],
        "fast": lambda training: [fast(features, training=training)],
    }
    tensors = {
        "plain": [
            features,
            *(v.value for v in textbook.large_kernels[largest].trainable_variables),
        ],
        "fast": [features, *(v.value for v in fast.trainable_variables)],
    }
    # Its gradients jump at the ReLU too: outputs are compared in the module.
    return [Part("largest k", calls, tensors, comparable=False)], modules


def _gcn(case: Case) -> tuple[list[Part], dict]:
    rivals = {"conv": LargeKernelConv, "stack": ConvStack, "fast": GCN}
    modules = {form: layer(case.filters, kernel_size=7) for form, layer in rivals.items()}
    for module in modules.values():
        module.build(case.shape)
    return [], modules


def _only_form(case: Case) -> tuple[list[Part], dict]:
    return [], _built(case, {"fast": CONTEXTS[case.module](case.filters)})


# Module -> function of a case that gives its parts, and the whole module in its forms.
MODULES = dict.fromkeys(CONTEXTS, _only_form) | {
    "ksac": _ksac,
    "vortex": _vortex,
    "lkspp": _lkspp,
    "gcn": _gcn,
}
