"""Layers against their plain form: time, memory, and how far the results are apart."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

from kseg.benchmark import timing
from kseg.benchmark.layer_forms import MODULES, Case, whole_module
from kseg.errors import UserError
from kseg.inference import counting
from kseg.inference.backend import require_tensorflow


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
    require_tensorflow("`--what=layers`")
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
    for part in [*parts, whole_module(case, modules)]:
        is_whole = part.name == "module"
        for backward in (False, True):
            compiled = {
                form: timing.compiled(call, part.tensors[form], backward)
                for form, call in part.calls.items()
            }
            results = {form: call() for form, call in compiled.items()}
            times = timing.interleaved_ms(compiled, repetitions)
            compared = slice(1) if is_whole else slice(None)
            for form, call in part.calls.items():
                measured = backward and is_whole
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
                    parameters=counting.parameters(modules[form]) if is_whole else None,
                    memory_mib=_memory(case, form) if measured else None,
                )


def _memory(case: Case, form: str) -> float:
    return timing.peak_memory(__name__, case=dataclasses.asdict(case), form=form)[0]


def step(case: dict, form: str) -> Callable:
    """What `timing.peak_memory` measures: forward and backward of the module in one form."""
    case = Case(**{key: tuple(v) if isinstance(v, list) else v for key, v in case.items()})
    _, modules = MODULES[case.module](case)
    part = whole_module(case, {form: modules[form]})
    return timing.compiled(part.calls[form], part.tensors[form], backward=True)
