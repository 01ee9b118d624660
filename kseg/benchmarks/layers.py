"""Layers against their plain form: time, and how far the results are apart.

The plain forms stand here and not in `kseg.layers`, since nothing but a comparison needs them;
the tests take them as the truth.
"""

import csv
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
from keras import ops

from kseg.errors import UserError
from kseg.layers import KSAC
from kseg.layers.shared_atrous_conv import shared_atrous_conv


def plain_shared_atrous_conv(features, kernel, dilation_rates):
    """What `shared_atrous_conv` computes, as one convolution of Keras for each rate."""
    return [
        ops.conv(features, kernel, padding="same", dilation_rate=rate) for rate in dilation_rates
    ]


def native_shared_atrous_conv(features, kernel, dilation_rates):
    """The same by the dilated convolution of TensorFlow's CPU library.

    Keras does not reach it: it asks for `tf.nn.convolution`, which cuts the map into as many
    small ones as the rate squared. The fast form has to beat this one.
    """
    # Not at the top: the plain forms serve the tests on every backend.
    import tensorflow as tf

    return [tf.nn.conv2d(features, kernel, 1, "SAME", dilations=rate) for rate in dilation_rates]


class PlainKSAC(KSAC):
    """`KSAC` with one convolution for each rate; weights and results are the same.

    Args:
        filters: As in `KSAC`.
        convolve: Function of (features, kernel, dilation_rates), one of the two above.
        **options: As in `KSAC`.
    """

    def __init__(self, filters=256, *, convolve=plain_shared_atrous_conv, **options):
        super().__init__(filters, **options)
        self._convolve = convolve

    def _rate_maps(self, features):
        kernel = ops.convert_to_tensor(self.kernel)
        return self._convolve(features, kernel, self.dilation_rates)


@dataclasses.dataclass(frozen=True)
class Case:
    """One size at which the forms are compared; maps are square."""

    batch: int
    size: int
    channels: int
    dilation_rates: tuple[int, ...]
    filters: int = 256

    def __str__(self) -> str:
        return (
            f"{self.size}x{self.size}x{self.channels} -> {self.filters}, batch {self.batch}, "
            f"rates {self.dilation_rates}"
        )


# Features of Xception or ResNet at output stride 16 of a 513 crop with the paper's best rates;
# those of MobileNetV2 of a 225 crop with rates for it, and of a 513 crop with the paper's.
CASES = (
    Case(1, 33, 2048, (1, 6, 12, 18, 24)),
    Case(16, 15, 320, (3, 6, 9)),
    Case(8, 33, 320, (6, 12, 18)),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: The size, as text.
        part: `"shared conv"`, `"module"`, or `"one rate"`, where the plain side has but a single
            3x3 convolution at rate 1.
        passes: `"forward"` or `"forward+backward"`.
        times: Form -> quartiles (lower, median, upper) of the milliseconds that it took.
        difference: Largest |fast - plain| over largest |plain|, of the outputs and the gradients
            of features and kernel, whichever has most; `None` where they do not compare.
    """

    case: str
    part: str
    passes: str
    times: dict[str, tuple[float, float, float]]
    difference: float | None

    def ratio(self, form: str) -> float:
        """How many times faster than this form the fast one is."""
        return self.times[form][1] / self.times["fast"][1]


FORMS = {
    "plain": native_shared_atrous_conv,
    "keras": plain_shared_atrous_conv,
    "fast": shared_atrous_conv,
}
_LEGEND = """KSAC against one convolution for each rate.
plain       tf.nn.conv2d, the fastest convolution that TensorFlow has
keras       the convolution of Keras layers, by tf.nn.convolution
fast        what kseg.layers has
times       median (lower..upper quartile) in ms, the forms taking turns
ratio       plain over fast
difference  largest |fast - plain| over largest |plain|: outputs and both gradients; in the
            module the outputs alone, since a gradient jumps where a ReLU is at its kink
one rate    plain and keras have a single 3x3 convolution at rate 1, fast all rates"""


def run(repetitions: int = 9, csv_path: str = "", cases: Iterable[Case] = CASES) -> list[Row]:
    """Compares KSAC with its plain forms, prints a table and returns its rows.

    Args:
        repetitions: Times that each call is measured, after two that are not.
        csv_path: File to write the rows to as well; none if empty.
        cases: Sizes to compare at.

    Raises:
        UserError: If Keras does not run on TensorFlow, which the times are for.
    """
    if keras.config.backend() != "tensorflow":
        raise UserError(
            "`--what=layers` measures under KERAS_BACKEND=tensorflow. "
            f"Received: {keras.config.backend()!r}"
        )
    print(_LEGEND)
    rows = []
    for case in cases:
        print(f"\n{case}")
        heads = "".join(f"{form:>24}" for form in FORMS)
        print(f"{'part':<13}{'passes':<18}{heads}{'ratio':>8}{'difference':>12}", flush=True)
        for row in _compare(case, repetitions):
            times = "".join(f"{_spread(row.times[form]):>24}" for form in FORMS)
            difference = "-" if row.difference is None else f"{row.difference:.1e}"
            print(
                f"{row.part:<13}{row.passes:<18}{times}{row.ratio('plain'):>8.2f}{difference:>12}",
                flush=True,
            )
            rows.append(row)
    if csv_path:
        _write_csv(csv_path, rows)
    return rows


def _compare(case: Case, repetitions: int) -> Iterator[Row]:
    random = np.random.default_rng(0)
    features = random.normal(size=(case.batch, case.size, case.size, case.channels))
    features = ops.convert_to_tensor(features, "float32")
    for part, calls in _parts(case, features).items():
        for backward in (False, True):
            compiled = {
                form: _compiled(call, features, kernel, backward)
                for form, (call, kernel) in calls.items()
            }
            results = {form: call() for form, call in compiled.items()}
            if part == "one rate":
                difference = None
            else:
                compared = slice(1) if part == "module" else slice(None)
                difference = _difference(results["plain"][compared], results["fast"][compared])
            passes = "forward+backward" if backward else "forward"
            yield Row(str(case), part, passes, _times(compiled, repetitions), difference)


def _parts(case: Case, features) -> dict[str, dict[str, tuple[Callable, keras.Variable]]]:
    """Part -> form -> the call to measure, of `training`, and the kernel it convolves with."""
    options = {"dilation_rates": case.dilation_rates, "dropout_rate": 0.0}
    modules = {
        "plain": PlainKSAC(case.filters, convolve=native_shared_atrous_conv, **options),
        "keras": PlainKSAC(case.filters, **options),
        "fast": KSAC(case.filters, **options),
    }
    for module in modules.values():
        module.build(features.shape)
        module.set_weights(modules["plain"].get_weights())
    kernel = modules["fast"].kernel

    def convolution(form, rates):
        return lambda training: FORMS[form](features, ops.convert_to_tensor(kernel), rates)

    def module_call(form):
        return lambda training: [modules[form](features, training=training)]

    rates = case.dilation_rates
    return {
        "shared conv": {form: (convolution(form, rates), kernel) for form in FORMS},
        "one rate": {
            form: (convolution(form, rates if form == "fast" else (1,)), kernel) for form in FORMS
        },
        "module": {form: (module_call(form), modules[form].kernel) for form in FORMS},
    }


def _compiled(call: Callable, features, kernel: keras.Variable, backward: bool) -> Callable:
    """The call as one graph, with the gradients of features and kernel if asked for."""
    import tensorflow as tf

    def forward():
        return call(training=False)

    def forward_and_backward():
        with tf.GradientTape() as tape:
            tape.watch(features)
            outputs = call(training=True)
        # An upstream gradient that differs from place to place, as that of a loss does.
        upstream = [tf.sin(output) for output in outputs]
        return outputs + tape.gradient(outputs, [features, kernel.value], upstream)

    return tf.function(forward_and_backward if backward else forward, autograph=False)


def _difference(plain, fast) -> float:
    return max(
        float(ops.max(ops.abs(ours - truth)) / ops.max(ops.abs(truth)))
        for truth, ours in zip(plain, fast, strict=True)
    )


def _times(calls: dict[str, Callable], repetitions: int) -> dict[str, tuple]:
    """Quartiles of each call's milliseconds.

    The calls take turns, so that a slow moment of the machine meets all of them.
    """
    for call in calls.values():
        call()
    times = {form: [] for form in calls}
    for _ in range(repetitions):
        for form, call in calls.items():
            start = time.perf_counter()
            call()
            times[form].append(1000 * (time.perf_counter() - start))
    return {form: tuple(np.percentile(taken, (25, 50, 75))) for form, taken in times.items()}


def _spread(quartiles: tuple[float, float, float]) -> str:
    lower, median, upper = quartiles
    return f"{median:.1f} ({lower:.1f}..{upper:.1f})"


def _write_csv(path: str, rows: list[Row]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        times = [f"{form}_{quartile}_ms" for form in FORMS for quartile in ("q25", "q50", "q75")]
        writer.writerow(["case", "part", "passes", *times, "ratio", "difference"])
        for row in rows:
            times = [f"{value:.3f}" for form in FORMS for value in row.times[form]]
            difference = "" if row.difference is None else f"{row.difference:.3e}"
            ratio = f"{row.ratio('plain'):.3f}"
            writer.writerow([row.case, row.part, row.passes, *times, ratio, difference])
