"""How an image is turned into class probabilities: scales, flips, windows and padding."""

import dataclasses
import itertools
import numbers
from typing import Any

import numpy as np
from absl import flags

from kseg import cli
from kseg.backbones.atrous import OUTPUT_STRIDES
from kseg.errors import UserError
from kseg.runs.experiment import Experiment
from kseg.runs.rules import JIT_COMPILE

AVERAGES = ("softmax", "logits")
TTA = ("none", "dlinknet")
GROUP = "Inference"
_LARGEST_SCALE = 1000  # TensorFlow has no sizes above 2 ** 31.

# A transform of the image before the network sees it: (rotate by 90 degrees, flip upside
# down, flip left to right).
TtaTransform = tuple[bool, bool, bool]
IDENTITY: TtaTransform = (False, False, False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How an image is turned into class probabilities. By default it is seen once, as a whole.

    The fields are flags of `kseg.evaluate` and `kseg.predict`, and keyword arguments of
    `Segmenter.predict_classes`. A single number may stand for a tuple of one, and numbers may be
    those of NumPy. The text form, `str(config)`, is written to `eval.json`.

    A view is one way in which the network sees the image: at one scale, under one flip or rotation.

    Attributes:
        scales: Factors by which the image is resized, each of which gives a view. A side of d
            pixels is resized to (d - 1) * scale + 1, rounded down, as in the official DeepLab.
        flip: Whether each view is repeated for the image flipped left to right.
        average: What is averaged over the views: `softmax` (the official DeepLab) or `logits`.
        tta: `dlinknet` repeats each view for the eight combinations of a rotation by 90 degrees, a
            flip left to right and a flip upside down. `none` does not.
        window_size: Height and width of windows that slide over the (scaled) image; where windows
            overlap their scores are averaged. A window is cut to a smaller image. Empty: the whole
            image is seen at once.
        window_stride: Rows and columns between two windows; the last window ends at the border of
            the image. Empty: two thirds of the window.
        eval_size: Height and width to which every image is padded, below and on the right, with the
            levels that the network normalises to zero. The official DeepLab has 513,513 on VOC.
            Empty: no padding.
        eval_dilation_rates: Dilation rates that replace those of the training (LKSPP, Table 2); as
            many as in training. Empty: those of the training.
        output_stride: Output stride that replaces that of the training. The dilation rates do not
            change with it. None: that of the training.
        crf: Whether a dense CRF refines the probabilities, see `kseg.inference.crf`.
        jit_compile: Whether XLA compiles the network on TensorFlow: `true`, `false` or `auto`, on a
            GPU. Only windows, padded images and tiles are compiled, which have one size at each
            scale. The scores are equal up to rounding, so the text form leaves it out.

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
    jit_compile: str = "auto"

    def __post_init__(self):
        object.__setattr__(self, "scales", _as_tuple(self.scales, float))
        for name in ("window_size", "window_stride", "eval_size", "eval_dilation_rates"):
            object.__setattr__(self, name, _as_tuple(getattr(self, name), int))
        in_range = all(
            isinstance(scale, float) and 0 < scale <= _LARGEST_SCALE for scale in self.scales
        )
        if not self.scales or not in_range or len(set(self.scales)) < len(self.scales):
            raise UserError(
                f"`--scales` must be different numbers above 0 and at most {_LARGEST_SCALE}. "
                f"Received: {_joined(self.scales) or 'none'}"
            )
        for name, value, known in (
            ("average", self.average, AVERAGES),
            ("tta", self.tta, TTA),
            ("jit_compile", self.jit_compile, JIT_COMPILE),
        ):
            if value not in known:
                raise UserError(f"`--{name}` must be one of {', '.join(known)}. Received: {value}")
        for name in ("window_size", "window_stride", "eval_size"):
            size = getattr(self, name)
            if len(size) == 1:
                size = size * 2
                object.__setattr__(self, name, size)
            if len(size) not in (0, 2) or not _are_positive_integers(size):
                raise UserError(
                    f"`--{name}` must be height,width, integers of at least 1, or one for both. "
                    f"Received: {_joined(size)}"
                )
        if self.output_stride not in (None, *OUTPUT_STRIDES):
            raise UserError(
                f"`--output_stride` must be one of {_joined(OUTPUT_STRIDES, ', ')}. "
                f"Received: {self.output_stride!r}"
            )
        if not _are_positive_integers(self.eval_dilation_rates):
            raise UserError(
                "`--eval_dilation_rates` must be integers of at least 1. "
                f"Received: {_joined(self.eval_dilation_rates)}"
            )
        if self.window_stride and not self.window_size:
            raise UserError(
                f"`--window_stride` needs `--window_size`. Received: {_joined(self.window_stride)}"
            )
        if self.window_size and self.eval_size:
            raise UserError(
                "`--window_size` and `--eval_size` cannot be given together, since windows are not "
                f"padded. Received: {_joined(self.window_size)} and {_joined(self.eval_size)}"
            )
        if self.window_size and not self.window_stride:
            stride = tuple(max(round(side * 2 / 3), 1) for side in self.window_size)
            object.__setattr__(self, "window_stride", stride)
        for side, stride in zip(self.window_size, self.window_stride, strict=True):
            if stride > side:
                raise UserError(
                    "`--window_stride` must be at most `--window_size`, or pixels would be left "
                    f"out. Received: {stride} and {side}"
                )
        if self.flip and self.tta != "none":
            raise UserError(
                f"`--flip` must not be given with `--tta={self.tta}`, which includes the flip"
            )

    def __str__(self) -> str:
        single = self.scales == (1.0,)
        parts = ["single scale" if single else f"scales {_joined(self.scales, ', ')}"]
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
        if self.views > 1 or self.window_size:
            parts.append(f"{self.average} averaged")
        if self.eval_dilation_rates:
            parts.append(f"dilation rates {_joined(self.eval_dilation_rates, ', ')}")
        if self.output_stride:
            parts.append(f"output stride {self.output_stride}")
        if self.crf:
            parts.append("dense CRF")
        return "; ".join(parts)

    @property
    def tta_transforms(self) -> tuple[TtaTransform, ...]:
        """The transforms under which the network sees the image at each scale."""
        if self.tta == "dlinknet":
            return tuple(itertools.product((False, True), repeat=3))
        return (IDENTITY, (False, False, True)) if self.flip else (IDENTITY,)

    @property
    def views(self) -> int:
        """How often the network sees an image, or each of its windows."""
        return len(self.scales) * len(self.tta_transforms)

    @property
    def is_single_whole_view(self) -> bool:
        """Whether the logits of the network for the image as it is are the result."""
        return self.views == 1 and self.scales == (1.0,) and not self.window_size

    @property
    def averages_probabilities(self) -> bool:
        """Whether views or windows are averaged as probabilities; if not, as logits."""
        return self.average == "softmax" and (self.views > 1 or bool(self.window_size))

    def applied_to(self, experiment: Experiment) -> Experiment:
        """Returns the experiment with the dilation rates and the output stride of this config.

        Raises:
            UserError: The network has no dilation rates, or another number of them, or does not
                support the output stride.
        """
        if self.eval_dilation_rates:
            trained = experiment.dilation_rates
            if not trained:
                raise UserError(
                    "`--eval_dilation_rates` needs a network with dilation rates; "
                    f"{experiment.context or experiment.model} has none. "
                    f"Received: {_joined(self.eval_dilation_rates)}"
                )
            if len(trained) != len(self.eval_dilation_rates):
                raise UserError(
                    f"`--eval_dilation_rates` must hold {len(trained)} rates, as many as in "
                    f"training ({_joined(trained)}), since each has weights. "
                    f"Received: {_joined(self.eval_dilation_rates)}"
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


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag for each field of `InferenceConfig`."""
    into = {"flag_values": values}
    flags.DEFINE_list("scales", ["1.0"], "Factors by which each image is resized.", **into)
    flags.DEFINE_bool("flip", False, "Average with the image flipped left to right.", **into)
    flags.DEFINE_enum("average", "softmax", AVERAGES, "What is averaged over the views.", **into)
    flags.DEFINE_enum(
        "tta", "none", TTA, "dlinknet averages over the eight flips and rotations.", **into
    )
    for name, help in (
        ("window_size", "Height,width of sliding windows. Empty: whole images."),
        ("window_stride", "Rows,columns between windows. Empty: two thirds of a window."),
        ("eval_size", "Height,width to which each image is padded. Empty: no padding."),
        ("eval_dilation_rates", "Dilation rates, as many as in training. Empty: the same."),
    ):
        flags.DEFINE_list(name, [], help, **into)
    flags.DEFINE_integer(
        "output_stride",
        None,
        "Output stride. Unset: that of the training. The dilation rates do not change with it, see "
        "--eval_dilation_rates.",
        **into,
    )
    flags.DEFINE_bool("crf", False, "Refine the result with a dense CRF (extra crf).", **into)
    flags.DEFINE_string(
        "jit_compile",
        "auto",
        "Compile the network with XLA for windows, padded images and tiles: auto, true or false. "
        "auto: on a GPU. On JAX it is always compiled.",
        **into,
    )
    cli.set_group(GROUP, [field.name for field in dataclasses.fields(InferenceConfig)], values)


def from_flags(values: flags.FlagValues) -> InferenceConfig:
    """Reads an inference config from parsed flags."""
    integers = ("window_size", "window_stride", "eval_size", "eval_dilation_rates")
    plain = ("flip", "average", "tta", "output_stride", "crf", "jit_compile")
    return InferenceConfig(
        scales=cli.numbers(values, "scales", float),
        **{name: cli.numbers(values, name, int) for name in integers},
        **{name: values[name].value for name in plain},
    )


def _as_tuple(value: Any, kind: type[int] | type[float]) -> tuple:
    """Returns one number or several as a tuple of Python's `int` or `float`.

    Other items, such as texts, and fractions for `int`, stay as they are; the checks refuse them.
    """
    known = numbers.Integral if kind is int else numbers.Real
    values = (value,) if np.ndim(value) == 0 else tuple(value)
    return tuple(kind(item) if isinstance(item, known) else item for item in values)


def _are_positive_integers(values: tuple) -> bool:
    return all(isinstance(value, int) and value >= 1 for value in values)


def _joined(values, separator=",") -> str:
    return separator.join(map(repr, values))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
