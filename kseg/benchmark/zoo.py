"""What each network of the zoo costs, as in the tables of docs/models.md; nothing is timed."""

import dataclasses
from collections.abc import Iterator

from tqdm import tqdm

from kseg.benchmark import table
from kseg.benchmark.models import build
from kseg.benchmark.runner import Benchmark
from kseg.errors import UserError
from kseg.inference import counting

# The papers' crop, and the nearest size that networks on half-pixel geometry do not pad.
SIZES = {"deeplab_v3_plus": 513, "gcn_fcn": 512, "dfp_fcn": 512}

_LITE = {"model": "deeplab_v3_plus", "backbone": "mobilenet_v2", "decoder": False}
_FULL = {"model": "deeplab_v3_plus", "context": "ksac"}

# Name of a network in docs/models.md -> how it is built, with 21 classes and by default output
# stride 16.
ZOO = {
    "`none`": {**_LITE, "context": "none"},
    "`aspp`": {**_LITE, "context": "aspp"},
    "`aspp`, `--first_kernel_size=3` (ASPP+)": {**_LITE, "context": "aspp", "first_kernel_size": 3},
    "`aspp`, `--separable`": {**_LITE, "context": "aspp", "separable": True},
    "`ksac`": {**_LITE, "context": "ksac"},
    "`ksac`, `--merge=concat`": {**_LITE, "context": "ksac", "merge": "concat"},
    "`ksac`, `--dilation_rates=1,6,12,18,24`": {
        **_LITE, "context": "ksac", "dilation_rates": (1, 6, 12, 18, 24),
    },
    "`lkspp`": {**_LITE, "context": "lkspp"},
    "`vortex`": {**_LITE, "context": "vortex"},
    "`vortex`, `--variant=A`": {**_LITE, "context": "vortex", "variant": "A"},
    "`gcn`": {**_LITE, "context": "gcn"},
    "`ppm`": {**_LITE, "context": "ppm"},
    "`mobilenet_v2`": {**_FULL, "backbone": "mobilenet_v2"},
    "`resnet50`": {**_FULL, "backbone": "resnet50"},
    "`resnet101`": {**_FULL, "backbone": "resnet101"},
    "`resnet152`": {**_FULL, "backbone": "resnet152"},
    "`resnet50_gcn`": {**_FULL, "backbone": "resnet50_gcn"},
    "`xception_65`": {**_FULL, "backbone": "xception_65"},
    "`gcn_fcn`": {"model": "gcn_fcn", "backbone": "resnet50"},
    "`dfp_fcn`": {"model": "dfp_fcn", "backbone": "resnet50"},
}  # fmt: skip


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
    chosen = {n: v for n, v in ZOO.items() if not only or any(word in n for word in only)}
    if not chosen:
        raise UserError(f"`--only` must hold words in {', '.join(ZOO)}. Received: {only}")
    for name, variant in tqdm(chosen.items(), desc="count", unit="network", leave=False):
        network = build(variant)
        side = SIZES[variant["model"]]
        size = shape or (1, side, side)
        yield Row(
            setting="images of " + "x".join(map(str, size)),
            network=name,
            parameters=counting.parameters(network),
            multiply_adds=counting.cost(network, (*size, 3)).multiply_adds,
        )


BENCHMARK = Benchmark(row=Row, measure=measure)
