"""What every network of the zoo costs, as the rows of README's table; nothing is timed."""

import dataclasses

from kseg.benchmark import timing
from kseg.benchmark.models import build
from kseg.errors import UserError
from kseg.inference import counting

# The papers' crop, and the nearest size that the networks on half-pixel geometry need not pad.
SIZES = {"deeplab_v3_plus": 513, "gcn_fcn": 512, "dfp_fcn": 512}

_LITE = {"model": "deeplab_v3_plus", "backbone": "mobilenet_v2", "decoder": False}
_FULL = {"model": "deeplab_v3_plus", "context": "ksac"}

# What README calls a network -> how it is built, 21 classes and output stride 16 where not said.
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
class Row:
    """A network: its name in README, trainable parameters, multiply-adds of one image."""

    name: str
    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        return f"| {self.name} | {self.parameters:,} | {self.multiply_adds / 1e9:.1f} G |"


def run(
    repetitions: int = 1,
    output: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
) -> list[Row]:
    """Prints the first columns of README's table of the zoo and returns its rows.

    Args:
        repetitions: Not used: nothing is timed.
        output: `.csv` or `.json` file to write the rows to as well; none if empty.
        only: Words, such as "xception_65": networks with one of them in their name; all if empty.
        shape: (batch, height, width) of the images; one of `SIZES` if empty.

    Raises:
        UserError: No network has such a name.
    """
    timing.check_output(output)
    chosen = {n: v for n, v in ZOO.items() if not only or any(word in n for word in only)}
    if not chosen:
        raise UserError(f"`--only` must hold names of {', '.join(ZOO)}. Received: {only}")
    rows = []
    for name, variant in chosen.items():
        network = build(variant)
        side = SIZES[variant["model"]]
        size = (*(shape or (1, side, side)), 3)
        multiply_adds = counting.cost(network, size).multiply_adds
        rows.append(Row(name, counting.parameters(network), multiply_adds))
        print(rows[-1], flush=True)
    if output:
        timing.write(output, rows)
    return rows
