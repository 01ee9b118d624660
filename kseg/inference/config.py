"""Inference protocols: scales, flips and turns, windows, padding, as one value with a text form."""

import dataclasses
import itertools
import math

from absl import flags

from kseg.errors import UserError
from kseg.runs.experiment import Experiment

AVERAGES = ("softmax", "logits")
TTA = ("none", "dlinknet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How class probabilities of an image are come by. The default is one look at the whole image.

    Fields are flags of `kseg.evaluate` and `kseg.predict`; the text form, `str(protocol)`, stands
    in `eval.json`.

    Attributes:
        scales: Factors the image is resized by, one look each. A side of d pixels gets
            (d - 1) * scale + 1, fractions cut off, as in the official DeepLab.
        flip: Whether each look is taken at the mirrored image too.
        average: What is averaged over the looks: `softmax` (the official DeepLab) or `logits`.
        tta: `dlinknet` takes each look in the eight ways to lay an image: turned by 90 degrees or
            not, mirrored left to right or not, upside down or not. `none`: as it is.
        window_size: Height and width of windows that slide over the (scaled) image; what windows
            share is averaged. An image smaller than a window is one window. Empty: whole images.
        window_stride: Rows and columns from one window to the next; the last lies at the edge.
            Empty: two thirds of the window.
        eval_size: Height and width that every image is padded to, below and to the right, with
            the levels that the network normalises to zero. 513,513 in the official DeepLab on
            VOC. Empty: not padded.
        eval_dilation_rates: Dilation rates in place of those trained with (LKSPP, Table 2), as
            many. Empty: the trained ones.
        output_stride: Output stride in place of the one trained with. Dilation rates do not
            follow it. None: the trained one.
        crf: Whether a dense CRF refines the probabilities, see `kseg.inference.crf`.

    Raises:
        UserError: A value breaks its rule; the message names the flag, the rule and the value.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: str = "softmax"
    tta: str = "none"
    window_size: tuple[int, ...] = ()
    window_stride: tuple[int, ...] = ()
    eval_size: tuple[int, ...] = ()
    eval_dilation_rates: tuple[int, ...] = ()
    output_stride: int | None = None
    crf: bool = False

    def __post_init__(self):
        above_0 = all(0 < scale < math.inf for scale in self.scales)
        if not self.scales or not above_0 or len(set(self.scales)) < len(self.scales):
            raise UserError(
                "`--scales` must be numbers above 0, none twice. "
                f"Received: {_listed(self.scales) or 'none'}"
            )
        for name, value, known in (("average", self.average, AVERAGES), ("tta", self.tta, TTA)):
            if value not in known:
                raise UserError(f"`--{name}` must be one of {', '.join(known)}. Received: {value}")
        for name in ("window_size", "window_stride", "eval_size"):
            size = getattr(self, name)
            if len(size) == 1:
                size = size * 2
                object.__setattr__(self, name, size)
            if len(size) not in (0, 2) or min(size, default=1) < 1:
                raise UserError(
                    f"`--{name}` must be height,width, each at least 1; one number stands for "
                    f"both. Received: {_listed(size)}"
                )
        if self.window_stride and not self.window_size:
            raise UserError("`--window_stride` goes with `--window_size` alone")
        if self.window_size and self.eval_size:
            raise UserError(
                "`--window_size` and `--eval_size` exclude each other: windows see no padding"
            )
        if self.window_size and not self.window_stride:
            stride = tuple(max(round(side * 2 / 3), 1) for side in self.window_size)
            object.__setattr__(self, "window_stride", stride)
        for side, stride in zip(self.window_size, self.window_stride, strict=True):
            if stride > side:
                raise UserError(
                    "`--window_stride` must be at most `--window_size`, or pixels are left out. "
                    f"Received: {stride} and {side}"
                )
        if self.flip and self.tta != "none":
            raise UserError(f"`--flip` is among the eight looks of `--tta={self.tta}`: drop it")

    def __str__(self) -> str:
        single = self.scales == (1.0,)
        parts = ["single scale" if single else f"scales {_listed(self.scales, ', ')}"]
        if self.window_size:
            parts.append(f"windows {_by(self.window_size)} every {_by(self.window_stride)}")
        elif self.eval_size:
            parts.append(f"padded to {_by(self.eval_size)}")
        elif single:
            parts[0] += ", whole images"
        if self.flip:
            parts.append("flip")
        if self.tta == "dlinknet":
            parts.append("eight flips and turns")
        if self.looks > 1 or self.window_size:
            parts.append(f"{self.average} averaged")
        if self.eval_dilation_rates:
            parts.append(f"dilation rates {_listed(self.eval_dilation_rates, ', ')}")
        if self.output_stride:
            parts.append(f"output stride {self.output_stride}")
        if self.crf:
            parts.append("dense CRF")
        return "; ".join(parts)

    @property
    def looks(self) -> int:
        """How often the network sees an image, or each of its windows."""
        return len(self.scales) * len(self.layings)

    @property
    def layings(self) -> tuple[tuple[bool, bool, bool], ...]:
        """How an image is laid: (turned by 90 degrees, mirrored upside down, left to right)."""
        if self.tta == "dlinknet":
            return tuple(itertools.product((False, True), repeat=3))
        mirrored = ((False, False, True),) if self.flip else ()
        return ((False, False, False), *mirrored)

    @property
    def one_whole_look(self) -> bool:
        """Whether the network's own logits are all there is."""
        return self.looks == 1 and self.scales == (1.0,) and not self.window_size

    @property
    def averages_probabilities(self) -> bool:
        """Whether looks or windows are averaged as probabilities; else logits come out."""
        return self.average == "softmax" and (self.looks > 1 or bool(self.window_size))

    def applied_to(self, experiment: Experiment) -> Experiment:
        """The experiment with the dilation rates and the output stride of this protocol.

        Raises:
            UserError: The network takes no dilation rates, or had another number of them, or
                takes no such output stride.
        """
        if self.eval_dilation_rates:
            trained = experiment.dilation_rates
            if trained and len(trained) != len(self.eval_dilation_rates):
                raise UserError(
                    "`--eval_dilation_rates` must be as many as those trained with "
                    f"({_listed(trained)}): each has weights. "
                    f"Received: {_listed(self.eval_dilation_rates)}"
                )
            if not trained:
                raise UserError(
                    "`--eval_dilation_rates` goes with networks that have dilation rates, and "
                    f"{experiment.context or experiment.model} has none. "
                    f"Received: {_listed(self.eval_dilation_rates)}"
                )
            experiment = experiment.replace(dilation_rates=self.eval_dilation_rates)
        if self.output_stride:
            experiment = experiment.replace(output_stride=self.output_stride)
        return experiment

    def check_fits(self, height: int, width: int) -> None:
        """Raises `UserError` if an image is larger than `eval_size`."""
        if self.eval_size and (height > self.eval_size[0] or width > self.eval_size[1]):
            raise UserError(
                "`--eval_size` must be at least the size of every image. "
                f"Received: {_by(self.eval_size)}, and an image of {_by((height, width))}"
            )


def define_flags(values: flags.FlagValues | None = None) -> None:
    """Defines one flag for each field of `Protocol`, by default on those of the program."""
    into = {} if values is None else {"flag_values": values}
    flags.DEFINE_list("scales", ["1.0"], "Factors that each image is resized by.", **into)
    flags.DEFINE_bool("flip", False, "Look at each image mirrored, too.", **into)
    flags.DEFINE_enum("average", "softmax", AVERAGES, "What is averaged over the looks.", **into)
    flags.DEFINE_enum("tta", "none", TTA, "dlinknet: look at the eight flips and turns.", **into)
    for name, help in (
        ("window_size", "Height,width of sliding windows; empty: whole images."),
        ("window_stride", "Rows,columns from window to window; empty: two thirds of a window."),
        ("eval_size", "Height,width that each image is padded to; empty: not padded."),
        ("eval_dilation_rates", "Dilation rates, as many as trained with; empty: the trained."),
    ):
        flags.DEFINE_list(name, [], help, **into)
    flags.DEFINE_integer(
        "output_stride",
        None,
        "Output stride; unset: the trained one. Rates do not follow: see --eval_dilation_rates.",
        **into,
    )
    flags.DEFINE_bool("crf", False, "Refine by a dense CRF (extra crf).", **into)


def from_flags(values: flags.FlagValues) -> Protocol:
    """Reads a protocol from parsed flags."""
    whole = ("window_size", "window_stride", "eval_size", "eval_dilation_rates")
    return Protocol(
        scales=numbers(values, "scales", float),
        **{name: numbers(values, name, int) for name in whole},
        **{name: values[name].value for name in ("flip", "average", "tta", "output_stride", "crf")},
    )


def numbers(values: flags.FlagValues, name: str, kind: type) -> tuple:
    """Reads a list flag as a tuple of numbers, or raises `UserError`."""
    try:
        return tuple(kind(text) for text in values[name].value)
    except ValueError as error:
        raise UserError(
            f"`--{name}` must be numbers joined by commas. Received: "
            + ",".join(values[name].value)
        ) from error


def _listed(values, separator=",") -> str:
    return separator.join(map(str, values))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
