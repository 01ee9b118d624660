"""What the benchmark of a GPU measures, in the order of its importance."""

import dataclasses
from collections.abc import Iterator

import keras

from kseg.benchmark import device, steps, timing
from kseg.benchmark.peers import torch_networks

PARTS = ("kernels", "networks", "smp", "train")
NETWORKS = ("xception_65", "mobilenet_v2", "resnet50", "resnet50_os8")
# The network of smp: ASPP and a decoder of one convolution, both separable.
SAME_AS_SMP = "as smp's"
# KSAC and ASPP have plain convolutions in the decoder, as in the flagfiles.
FORMS = ("ksac", SAME_AS_SMP, "aspp")
# The smaller network comes first: the input has to be fast enough for it.
TRAINED = ("mobilenet_v2", "xception_65")
FIVE_RATES, THREE_RATES, ONE_CONV = "conv, 5 rates", "conv, 3 rates", "conv, one 3x3"
DEPTHWISE, LINES = "depthwise conv, 3x3", "depthwise convs, 1x16 and 16x1"
# Kernels and modules with their forms; those that the targets compare come first.
KERNELS = (
    (FIVE_RATES, "kseg"),
    (ONE_CONV, "plain"),
    ("module KSAC", "kseg"),
    ("module Vortex", "kseg"),
    ("average_pool", "kseg"),
    (THREE_RATES, "kseg"),
    (DEPTHWISE, "kseg"),
    (LINES, "kseg"),
    (FIVE_RATES, "plain"),
    ("module KSAC", "plain"),
    ("module Vortex", "plain"),
    ("average_pool", "plain"),
    (THREE_RATES, "plain"),
    (DEPTHWISE, "plain"),
    (LINES, "plain"),
)
# Forms that kseg does not choose.
ROUNDED, TWO_POOLINGS, PREFIX_SUMS = "kseg, rounded products", "two poolings", "prefix sums"
FORWARD, BOTH, STEP = "forward", "both passes", "training step"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How everything is measured.

    Attributes:
        size: Height and width of the images.
        batch: Images in a batch.
        repetitions: How often each call is measured, after two that are not.
        precision: Names of `device.POLICIES`, the most important one first.
        jit_compile: One of `kseg.runs.rules.JIT_COMPILE`. "auto" is the rule of the trainer first,
            and the other choice later.
        networks: Names of `NETWORKS`.
        log_every: Steps between two points of the trainer's log.
        block_seconds: See `timing.interleaved_times`.
    """

    size: int = 513
    batch: int = 16
    repetitions: int = 9
    precision: tuple[str, ...] = ("float32",)
    jit_compile: str = "auto"
    networks: tuple[str, ...] = NETWORKS
    log_every: int = 50
    block_seconds: float = timing.BLOCK_SECONDS

    @property
    def shape(self) -> tuple[int, int, int]:
        """Batch, height and width."""
        return self.batch, self.size, self.size


@dataclasses.dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        part: One of `PARTS`.
        what: Network, kernel or module.
        form: One of `FORMS` for a network, form of a kernel, or the project it is from.
        passes: "forward", "both passes" or "training step".
        dtype: A name of `device.POLICIES`.
        xla: Whether XLA compiles it.
    """

    part: str
    what: str
    form: str
    passes: str
    dtype: str
    xla: bool


def default_precision() -> tuple[str, ...]:
    """Returns what is measured without `--precision`: on a CPU float32 only."""
    return ("bfloat16", "float32", "float16") if device.is_gpu() else ("float32",)


def plan(part: str, settings: Settings) -> list[Task]:
    """Returns the tasks of a part."""
    first = steps.compiles(settings.jit_compile)
    if part == "smp":
        conditions = [(dtype, False) for dtype in settings.precision]
    else:
        conditions = [(dtype, first) for dtype in settings.precision]
        is_open = settings.jit_compile == "auto" and keras.config.backend() == "tensorflow"
        if is_open and device.is_gpu() and part != "train":
            conditions.insert(1, (settings.precision[0], not first))
    planned: list[Task] = []
    for dtype, xla in conditions:
        rows = list(_PLANS[part](settings))
        if part == "kernels":
            rows += _other_forms(dtype, xla, is_first=not planned)
        planned += [Task(part, *row, dtype, xla) for row in rows]
    return planned


def _kernels(settings: Settings) -> Iterator[tuple[str, str, str]]:
    for what, form in KERNELS:
        for passes in (FORWARD, BOTH):
            yield what, form, passes


def _other_forms(dtype: str, xla: bool, is_first: bool) -> Iterator[tuple[str, str, str]]:
    """Yields forms that kseg does not choose, of the averages in the first condition only."""
    others = []
    if xla and dtype in ("bfloat16", "float16"):
        others.append((FIVE_RATES, ROUNDED))
    if is_first:
        others += [("average_pool", TWO_POOLINGS), ("average_pool", PREFIX_SUMS)]
    for what, form in others:
        for passes in (FORWARD, BOTH):
            yield what, form, passes


def _networks(settings: Settings) -> Iterator[tuple[str, str, str]]:
    for form in FORMS:
        for network in settings.networks:
            for passes in (STEP, FORWARD):
                yield network, form, passes


def _train(settings: Settings) -> Iterator[tuple[str, str, str]]:
    for network in TRAINED:
        if network in settings.networks:
            yield network, FORMS[0], STEP


def _smp(settings: Settings) -> Iterator[tuple[str, str, str]]:
    for network in settings.networks:
        for passes in (STEP, FORWARD):
            yield network, "smp", passes
    for network in settings.networks:
        if network in torch_networks.TORCHVISION:
            for passes in (STEP, FORWARD):
                yield network, "torchvision", passes


_PLANS = {"kernels": _kernels, "networks": _networks, "smp": _smp, "train": _train}
