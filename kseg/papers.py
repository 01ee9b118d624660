"""Compares numbers in the papers with ours: `python -m kseg.papers`.

Each of our numbers is counted on built layers and traced networks. Unless a row says otherwise, a
count agrees with the paper if it differs by less than one unit of the last printed digit.
"""

import dataclasses
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from kseg import cli
from kseg.backbones import BACKBONES
from kseg.errors import missing_extra
from kseg.files import atomic_path
from kseg.inference import counting
from kseg.inference.backend import require_tensorflow
from kseg.layers import ASPP, GCN, KSAC, LKSPP, ConvStack, LargeKernelConv, VortexPooling
from kseg.models import deeplab_v3_plus, dfp_fcn
from kseg.visualization.progress import progress_bar

CLASSES = 21  # Pascal VOC with the background, in every row
LKSPP_SIZES = (1, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of a paper and our count.

    Attributes:
        paper: Short name of the paper.
        where: Table, section or equation.
        what: What is counted, with the option that gives it where there is one.
        printed: The number as printed in the paper.
        ours: Our count in the same unit.
        agrees: Whether our count is within the tolerance of the row.
    """

    paper: str
    where: str
    what: str
    printed: str
    ours: str
    agrees: bool


def _row(
    paper: str,
    where: str,
    what: str,
    printed: str,
    ours: float,
    unit: str = "",
    *,
    within: float | None = None,
) -> Row:
    """A row whose tolerance is one unit of the last printed digit, or a fraction of the number.

    Args:
        paper, where, what: See `Row`.
        printed: The number as printed, without its unit.
        ours: The count in the same unit.
        unit: Unit of both.
        within: Largest difference as a fraction of the printed number, instead of one unit of the
            last digit.
    """
    decimals = len(printed.partition(".")[2])
    shown = f"{ours:,.{decimals + 2}f}" if isinstance(ours, float) else f"{ours:,}"
    difference = abs(ours - float(printed))
    agrees = difference < 10**-decimals if within is None else difference <= within * float(printed)
    return Row(paper, where, what, printed + unit, shown + unit, agrees)


def ksac() -> Iterator[Row]:
    """KSAC: Table 1, sections 3.2 and 5.3."""
    modules = {
        "ASPP": {"context": "aspp"},
        "KSAC, --merge=sum": {"context": "ksac", "merge": "sum"},
        "KSAC, --merge=concat": {"context": "ksac", "merge": "concat"},
    }
    for module, options in modules.items():
        network = deeplab_v3_plus(CLASSES, backbone="mobilenet_v2", decoder=False, **options)
        millions = counting.parameters(network) / 1e6
        printed = "4.5" if module == "ASPP" else "3.0"
        what = f"MobileNetV2, no decoder, {module}: trainable parameters"
        yield _row("KSAC", "Table 1", what, printed, millions, " M")
    for module, options in modules.items():
        network = deeplab_v3_plus(CLASSES, backbone="xception_65", decoder_convs=1, **options)
        millions = counting.parameters(network, trainable=False) / 1e6
        printed = "54.3" if module == "ASPP" else "44.8"
        what = f"Xception-65, --decoder_convs=1, {module}: all variables"
        yield _row("KSAC", "Table 1", what, printed, millions, " M")
    aspp, three = _built(ASPP(), 2048), _built(KSAC(), 2048)
    saved = 100 * (1 - _kernels(three, 2048) / _kernels(aspp, 2048))
    yield _row("KSAC", "3.2", "kernel weights saved before the projection", "62", saved, " %")
    five = _built(KSAC(dilation_rates=(1, 6, 12, 18, 24)), 2048)
    norms = 2 * (2 * 256)
    more = counting.parameters(five) - counting.parameters(three) - norms
    what = f"weights that rates 1 and 24 add, besides {norms} of their batch norms"
    yield _row("KSAC", "5.3", what, "0", more)


def gcn() -> Iterator[Row]:
    """Large Kernel Matters: Tables 2, 4 and 11."""
    tables = {
        "GCN": (GCN, ("260", "434", "608", "782")),
        "k x k convolution": (LargeKernelConv, ("387", "1075", "2107", "3484")),
    }
    for name, (layer, numbers) in tables.items():
        for size, printed in zip((3, 5, 7, 9), numbers, strict=True):
            thousands = counting.parameters(_built(layer(CLASSES, kernel_size=size), 2048)) / 1e3
            what = f"{name}, k = {size}, 2048 -> {CLASSES}: parameters"
            yield _row("GCN", "Table 2", what, printed, thousands, " K")
    for channels, printed in ((2048, "75885"), (1024, "28505"), (210, "4307")):
        stack = _built(ConvStack(CLASSES, kernel_size=7, channels=channels), 2048)
        what = f"stack of 3x3, k = 7, m = {channels}: parameters"
        yield _row("GCN", "Table 4", what, printed, counting.parameters(stack) / 1e3, " K")
    for name in ("resnet50", "resnet50_gcn"):
        network = BACKBONES[name](output_stride=32)
        millions = counting.cost(network, (1, 224, 224, 3)).multiply_adds / 1e6
        what = f"{name} at 224x224: multiply-adds (within 5 %)"
        yield _row("GCN", "Table 11", what, "3700", millions, " M", within=0.05)


def vortex() -> Iterator[Row]:
    """Vortex pooling: Equation 1, the fraction of a 65x65 map that an output sees; section 3.4."""
    plain = {"image_pooling": False, "dropout_rate": 0.0}
    atrous = {"dilation_rates": (12, 24, 36), **plain}
    variant_b = VortexPooling(1, variant="B", **plain)
    # On 65x65 the outer taps of rate 36 fall outside the map, so those maps are larger.
    rows = (
        ("ASPP", ASPP(1, **atrous), 129, "0.0059", None),
        (
            "variant A, 5x5",
            VortexPooling(1, variant="A", pool_size=5, **atrous),
            129,
            "0.148",
            None,
        ),
        (
            "variant A, 9x9",
            VortexPooling(1, variant="A", pool_size=9, **atrous),
            129,
            "0.479",
            None,
        ),
        ("variant B", variant_b, 65, "1", 0),
    )
    for name, layer, size, printed, within in rows:
        fraction = _pixels_seen(_built(layer, 1), size) / 65**2
        what = f"{name}: fraction of 65x65 seen, on a map of {size}x{size}"
        yield _row("Vortex", "Eq. 1", what, printed, fraction, within=within)
    what = "variant B: pixels seen, 81x81, on a map of 129x129"
    yield _row("Vortex", "3.4", what, str(81**2), _pixels_seen(variant_b, 129))


def lkspp() -> Iterator[Row]:
    """LKSPP: Equations 1 to 4 at C = D = 256."""
    width = 256
    equations = {
        "plain": ("Eq. 1", "K*K*C*D", lambda k: k * k * width * width),
        "dense": ("Eq. 2", "4*K*C*D", lambda k: 4 * k * width * width),
        "separable": ("Eq. 3", "4(K*C + C*D)", lambda k: 4 * (k * width + width * width)),
    }
    for convolution, (where, formula, printed) in equations.items():
        for size in LKSPP_SIZES:
            what = f"--convolution={convolution}, K = {size}: {formula}"
            yield _row("LKSPP", where, what, str(printed(size)), lkspp_count(convolution, size))
    total = sum(equations["separable"][2](size) for size in LKSPP_SIZES)
    module = _built(LKSPP(width, image_pooling=False), width)
    ours = _kernels(module) - _kernels(module.project)
    yield _row("LKSPP", "Eq. 4", f"the module, K = {LKSPP_SIZES}", str(total), ours)


def lkspp_count(convolution: str, size: int, width: int = 256) -> int:
    """Returns the kernel weights of one kernel size of LKSPP, counted on the built layer."""
    layer = LKSPP(width, kernel_sizes=(size,), convolution=convolution, image_pooling=False)
    layer = _built(layer, width)
    return _kernels(layer) - _kernels(layer.project)


def dfp() -> Iterator[Row]:
    """DFP: Table 1, how the cost grows with the depth, counted and not timed."""
    costs = [counting.cost(dfp_fcn(CLASSES, depth=d), (1, 512, 512, 3)) for d in range(6)]
    for name in ("multiply_adds", "activation_bytes"):
        values = [getattr(cost, name) for cost in costs]
        falls = sum(after < before for before, after in zip(values, values[1:], strict=False))
        shown = " ".join(f"{value / 1e9:.2f}" for value in values)
        what = f"{name.replace('_', ' ')} (10^9) at 512x512, depth 0 to 5: {shown}; decreases"
        yield _row("DFP", "Table 1", what, "0", falls)
    ratio = costs[2].multiply_adds / costs[5].multiply_adds
    # Our reading of the table, which prints 0.64 for the time.
    yield _row("DFP", "Table 1", "multiply-adds of depth 2 over depth 5, as read", "0.80", ratio)


PAPERS: dict[str, Callable[[], Iterator[Row]]] = {
    "KSAC": ksac,
    "GCN": gcn,
    "Vortex": vortex,
    "LKSPP": lkspp,
    "DFP": dfp,
}


def _built(layer: keras.Layer, channels: int) -> keras.Layer:
    layer.build((None, None, None, channels))
    return layer


def _kernels(layer: keras.Layer, channels: int | None = None) -> int:
    """The number of weights in convolution kernels (that have so many input channels)."""
    kernels = [v for v in layer.trainable_variables if len(v.shape) == 4]
    return sum(int(np.prod(v.shape)) for v in kernels if channels in (None, v.shape[2]))


def _pixels_seen(layer: keras.Layer, size: int) -> int:
    """The number of pixels of a map that the output at its centre depends on."""
    for variable in layer.trainable_variables:
        if len(variable.shape) == 4:
            variable.assign(tf.ones(variable.shape))  # nothing cancels and no ReLU is at zero
    features = tf.ones((1, size, size, 1))
    with tf.GradientTape() as tape:
        tape.watch(features)
        centre = layer(features)[:, size // 2, size // 2]
    return int(np.count_nonzero(tape.gradient(centre, features)))


def rows() -> Iterator[Row]:
    """Yields the rows of all papers as they are counted."""
    for paper in PAPERS.values():
        yield from paper()


def _figure_class() -> type:
    """Returns the class of matplotlib's figures.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("figures", "`--figure`", error) from error
    return Figure


def draw_lkspp_figure(path: str) -> None:
    """Draws Figure 3 of LKSPP: weights of one kernel size over K in three forms, C = D = 256.

    Raises:
        UserError: matplotlib is not installed.
    """
    sizes = range(1, 17)
    figure = _figure_class()(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for convolution, label in (
        ("plain", "plain K x K (Eq. 1)"),
        ("dense", "large kernel (Eq. 2)"),
        ("separable", "separable large kernel (Eq. 3)"),
    ):
        counts = [lkspp_count(convolution, size) / 1e6 for size in sizes]
        axes.plot(sizes, counts, marker="o", label=label)
    axes.set(xlabel="kernel size K", ylabel="weights (millions)", title="LKSPP, Figure 3")
    axes.legend()
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def define_flags() -> None:
    flags.DEFINE_string(
        "figure", "lkspp_figure_3.png", "File to draw LKSPP's Figure 3 to. Empty: none."
    )


def main(values: flags.FlagValues) -> int:
    require_tensorflow("`kseg.papers`")
    if values.figure:  # Before the counting, which takes minutes.
        with cli.writing({"figure": values.figure}):
            draw_lkspp_figure(values.figure)
        print(f"LKSPP, Figure 3: {values.figure}")
    counted = list(progress_bar(rows(), desc="count", unit="row", leave=False))
    widths = [
        max(len(getattr(row, name)) for row in counted) for name in ("paper", "where", "what")
    ]
    for row in counted:
        texts = (row.paper, row.where, row.what)
        head = "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True))
        verdict = "agrees" if row.agrees else "DISAGREES"
        print(f"{head}  {row.printed:>10}  {row.ours:>14}  {verdict}")
    failed = sum(not row.agrees for row in counted)
    print(f"{len(counted) - failed} of {len(counted)} rows agree")
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main, define_flags)
