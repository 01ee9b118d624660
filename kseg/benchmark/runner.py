"""Runs a benchmark: checks its arguments, prints its tables and writes its rows to a file."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import keras

from kseg import cli
from kseg.benchmark import device, table
from kseg.errors import UserError
from kseg.inference.backend import prepare_backend, require_tensorflow, supported_backend


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What `--what` can name.

    Attributes:
        row: Class of the rows.
        measure: Generator of rows. Its arguments are `repetitions`, `only` and `shape`, the last
            two empty where the user gave none, and those named in `options`.
        choices: What `--only` may hold; empty where `measure` checks it.
        axes: Names of the sizes in `--shape`.
        options: Further flags that `measure` takes.
        on_jax: Whether it runs on the JAX backend, too.
        notes: Lines that follow the legend of the columns.
        conclude: Function of all rows that returns what they show, to be printed below them.
    """

    row: type[table.Row]
    measure: Callable[..., Iterator[table.Row]]
    choices: tuple[str, ...] = ()
    axes: tuple[str, ...] = ("batch", "height", "width")
    options: tuple[str, ...] = ()
    on_jax: bool = False
    notes: str = ""
    conclude: Callable[[list], str] | None = None


def run(
    benchmark: Benchmark,
    *,
    repetitions: int = 9,
    results: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
    **options,
) -> list[table.Row]:
    """Measures, prints a table for each setting and returns the rows.

    Args:
        benchmark: What to measure.
        repetitions: How often each call is measured, after one that is not.
        results: `.csv` or `.json` file that the rows are written to; empty: none.
        only: Parts to measure, of `benchmark.choices`; empty: the benchmark's default.
        shape: Sizes along `benchmark.axes`; empty: the benchmark's default.
        **options: Further arguments of `benchmark.measure`.

    Raises:
        UserError: An argument does not fit, or the benchmark does not run on the backend.
    """
    if not benchmark.on_jax:
        require_tensorflow("This part of `kseg.benchmark`")
    supported_backend()
    if results and not results.endswith((".csv", ".json")):
        raise UserError(f"`--results` must end in .csv or .json. Received: {results!r}")
    for name in only:
        if benchmark.choices and name not in benchmark.choices:
            choices = ", ".join(benchmark.choices)
            raise UserError(f"`--only` must hold names of {choices}. Received: {name!r}")
    if shape and (len(shape) != len(benchmark.axes) or min(shape) < 1):
        axes = ",".join(benchmark.axes)
        raise UserError(f"`--shape` must be integers {axes}, all at least 1. Received: {shape}")
    prepare_backend()
    print(table.legend(benchmark.row))
    if benchmark.notes:
        print(f"\n{benchmark.notes}")
    rows = []
    backend, computed_on, processor = keras.config.backend(), device.name(), device.processor()
    measured = (
        dataclasses.replace(
            row, backend=backend, device=processor if row.xla is None else computed_on
        )
        for row in benchmark.measure(repetitions=repetitions, only=only, shape=shape, **options)
    )
    for heading, group in itertools.groupby(measured, key=lambda row: row.heading):
        group = list(group)
        print(f"\n{heading}\n\n{table.markdown(group)}", flush=True)
        rows += group
    if benchmark.conclude:
        print(benchmark.conclude(rows))
    if results:
        with cli.writing({"results": results}):
            table.write(results, rows)
    return rows
