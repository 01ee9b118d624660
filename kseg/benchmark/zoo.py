"""What each network of the zoo costs, as in the tables of docs/models.md; nothing is timed."""

import dataclasses
from collections.abc import Iterator

from kseg.benchmark import table
from kseg.benchmark.models import build
from kseg.benchmark.runner import Benchmark
from kseg.errors import UserError
from kseg.inference import counting
from kseg.models import BACKBONES, CONTEXTS, MODELS
from kseg.runs.rules import to_text
from kseg.visualization.progress import progress_bar

# The papers' crop, and the nearest size that networks on half-pixel geometry do not pad.
SIZES = {"deeplab_v3_plus": 513, "gcn_fcn": 512, "dfp_fcn": 512}

_LITE = {"model": "deeplab_v3_plus", "backbone": "mobilenet_v2", "decoder": False}
_FULL = {"model": "deeplab_v3_plus", "context": "ksac"}


def networks() -> dict[str, dict]:
    """Returns how each network of the zoo is built, by its name in docs/models.md.

    The context modules and their variants come first, then the backbones, then the other networks.
    All have 21 classes.
    """
    zoo = {}
    for name, context in CONTEXTS.items():
        zoo[f"`{name}`"] = {**_LITE, "context": name}
        for options, _ in getattr(context, "variants", ()):
            flags = " ".join(_as_flag(*option) for option in options.items())
            zoo[f"`{name}`, `{flags}`"] = {**_LITE, "context": name, **options}
    for name in BACKBONES:
        zoo[f"`{name}`"] = {**_FULL, "backbone": name}
    for name in MODELS.keys() - {"deeplab_v3_plus"}:
        zoo[f"`{name}`"] = {"model": name, "backbone": "resnet50"}
    return zoo


def _as_flag(name: str, value: object) -> str:
    return f"--{name}" if value is True else f"--{name}={to_text(value)}"


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    """A network of the zoo."""

    network: str = table.column("name in docs/models.md")
    parameters: int = table.column("trainable parameters", ",")
    multiply_adds: int = table.column("of one forward pass", lambda count: f"{count / 1e9:.1f} G")


def measure(*, repetitions: int, only: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[Row]:
    """Yields the rows of all networks, or of those whose names hold one of the words in `only`.

    `repetitions` is not used, since nothing is timed.
    """
    zoo = networks()
    chosen = {n: v for n, v in zoo.items() if not only or any(word in n for word in only)}
    if not chosen:
        raise UserError(f"`--only` must hold words in {', '.join(zoo)}. Received: {only}")
    for name, variant in progress_bar(chosen.items(), desc="count", unit="network", leave=False):
        network = build(variant)
        side = SIZES[variant["model"]]
        size = shape or (1, side, side)
        yield Row(
            setting="images of " + "x".join(map(str, size)),
            dtype="",
            xla=None,
            network=name,
            parameters=counting.parameters(network),
            multiply_adds=counting.cost(network, (*size, 3)).multiply_adds,
        )


BENCHMARK = Benchmark(row=Row, measure=measure)
