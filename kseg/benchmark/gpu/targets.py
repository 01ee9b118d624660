"""What the measurements should reach: ratios of rows of one run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kseg.benchmark import steps, table
from kseg.benchmark.gpu.tasks import (
    BOTH,
    FIVE_RATES,
    FORWARD,
    NETWORKS,
    ONE_CONV,
    SAME_AS_SMP,
    STEP,
    TRAINED,
    Settings,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A bound of a ratio.

    Attributes:
        name: What is compared.
        above: Fields of the row in the numerator.
        below: Fields of the row in the denominator.
        value: Field whose ratio is taken: "ms", its median, or "images_per_second".
        at_least: The lower bound; None if there is none.
        at_most: The upper bound; None if there is none.
        on_gpu: Whether it is a target on a GPU, or one on a CPU.
        dtype: The precision.
    """

    name: str
    above: dict
    below: dict
    value: str = "images_per_second"
    at_least: float | None = None
    at_most: float | None = None
    on_gpu: bool = True
    dtype: str = "bfloat16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A target with what was measured."""

    target: str = table.column("what is compared")
    passes: str = table.column("what is computed")
    dtype: str = table.column("precision of the products")
    bound: str = table.column("the target")
    ratio: float | None = table.column("what was measured", ".2f")
    result: str = table.column("met, missed or not measured")


def _network(name: str, passes: str, form: str = "ksac") -> dict:
    return {"part": "networks", "what": name, "form": form, "passes": passes}


def _smp(name: str, passes: str) -> dict:
    return {"part": "smp", "what": name, "form": "smp", "passes": passes}


def _kernel(what: str, passes: str, form: str = "kseg") -> dict:
    return {"part": "kernels", "what": what, "form": form, "passes": passes}


def _trained(name: str, form: str) -> dict:
    return {"part": "train", "what": name, "form": form}


TARGETS = (
    *(
        Target(
            name="KSAC's convolution at five rates over one plain 3x3",
            above=_kernel(FIVE_RATES, passes),
            below=_kernel(ONE_CONV, passes, "plain"),
            value="ms",
            at_most=1.3,
        )
        for passes in (FORWARD, BOTH)
    ),
    *(
        Target(
            name="Vortex over KSAC, modules",
            above=_kernel("module Vortex", passes),
            below=_kernel("module KSAC", passes),
            value="ms",
            at_most=2,
        )
        for passes in (FORWARD, BOTH)
    ),
    *(
        Target(
            name="images/s of xception_65 with KSAC over smp's",
            above=_network("xception_65", passes),
            below=_smp("xception_65", passes),
            at_least=1.25,
        )
        for passes in (STEP, FORWARD)
    ),
    *(
        Target(
            name=f"images/s of kseg.train over the bare step, {name}",
            above=_trained(name, "python -m kseg.train"),
            below=_trained(name, "bare step"),
            at_least=0.9,
        )
        for name in TRAINED
    ),
    *(
        Target(
            name=f"images/s of {name} over smp's, the same network",
            above=_network(name, passes, SAME_AS_SMP),
            below=_smp(name, passes),
            at_least=1,
            on_gpu=False,
            dtype="float32",
        )
        for name in NETWORKS
        for passes in (STEP, FORWARD)
    ),
)


def results(rows: Sequence[Any], settings: Settings, on_gpu: bool) -> list[Result]:
    """Returns all targets with their results.

    Args:
        rows: Rows of `report.Row`.
        settings: How they were measured. Of the rows of kseg those count that are compiled as the
            trainer does by default.
        on_gpu: Whether kseg computes on a GPU.
    """
    compiled = "yes" if steps.compiles(settings.jit_compile) else "no"

    def find(fields: dict, dtype: str) -> Any | None:
        fields = {**fields, "dtype": dtype, "xla": "no" if fields["part"] == "smp" else compiled}
        for row in rows:
            if row.ms and all(getattr(row, name) == value for name, value in fields.items()):
                return row
        return None

    found = []
    for target in TARGETS:
        above, below = find(target.above, target.dtype), find(target.below, target.dtype)
        ratio = None
        result = "not measured"
        if target.on_gpu != on_gpu:
            result += ": it needs a GPU" if target.on_gpu else ": it is for CPUs"
        elif above and below and above.device != below.device:
            result += f": {above.form} ran on {above.device}, {below.form} on {below.device}"
        elif above and below:
            ratio = _value(above, target.value) / _value(below, target.value)
            is_met = ratio >= target.at_least if target.at_least else ratio <= target.at_most
            result = "met" if is_met else "missed"
        bound = f">= {target.at_least}" if target.at_least else f"<= {target.at_most}"
        found.append(
            Result(
                target=target.name,
                passes=target.above.get("passes", STEP),
                dtype=target.dtype,
                bound=bound,
                ratio=ratio,
                result=result,
            )
        )
    return found


def _value(row: Any, name: str) -> float:
    return row.ms[1] if name == "ms" else row.images_per_second
