"""The rules that the values of an experiment must satisfy, beyond their types."""

import math
from collections.abc import Collection
from typing import Any

from kseg.data.names import is_text
from kseg.errors import UserError
from kseg.recipe.losses import LOSSES
from kseg.recipe.schedules import SCHEDULES

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("default", "mirrored")
JIT_COMPILE = ("auto", "true", "false")
_NAMES = {
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "strategy": STRATEGIES,
    "jit_compile": JIT_COMPILE,
}
_AT_LEAST_1 = (
    "batch_size",
    "epochs",
    "shuffle_buffer",
    "log_every",
    "val_every",
    "keep_checkpoints",
)
_AT_LEAST_0 = (
    "scale_step",
    "learning_rate",
    "learning_rate_power",
    "end_learning_rate",
    "warm_up_steps",
    "clip_norm",
    "auxiliary_weight",
    "weight_decay",
    "steps",
    "save_every",
    "seed",
    "early_stop_after",
    "freeze_backbone_epochs",
)
# Keras seeds NumPy, which takes 32 bits. The optimizer counts steps in 32 bits with a sign.
_LIMITS = {"seed": 2**32, "steps": 2**31, "epochs": 2**31, "batch_size": 2**31}
_MOST_PIXELS = 2**31 // 12  # A constant of TensorFlow is smaller than 2 GiB.
_FRACTIONS = ("ohem_fraction", "backbone_learning_rate_factor")
_BELOW_1 = ("momentum", "batch_norm_momentum")


def check(experiment: Any) -> None:
    """Checks the values of an experiment.

    Raises:
        UserError: A value breaks its rule; the message names the flag, the rule and the value.
    """
    for name, names in _NAMES.items():
        require_known(name, getattr(experiment, name), names)
    for name, value in vars(experiment).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"`--{name}` must be finite. Received: {value}")
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and not is_text(text):
                raise UserError(f"`--{name}` must be UTF-8. Received: {ascii(text)}")
    for rule, holds, names in (
        ("at least 1", lambda value: value >= 1, _AT_LEAST_1),
        ("at least 0", lambda value: value >= 0, _AT_LEAST_0),
        ("at least -1", lambda value: value >= -1, ("freeze_batch_norm_epoch",)),
        ("in [0, 1)", lambda value: 0 <= value < 1, _BELOW_1),
        ("in (0, 1]", lambda value: 0 < value <= 1, _FRACTIONS),
    ):
        for name in names:
            value = getattr(experiment, name)
            if not holds(value):
                raise UserError(f"`--{name}` must be {rule}. Received: {value}")
    for name, limit in _LIMITS.items():
        if getattr(experiment, name) >= limit:
            raise UserError(
                f"`--{name}` must be below {limit}. Received: {getattr(experiment, name)}"
            )
    _check_data(experiment)
    weights = experiment.class_weights
    if weights and not (min(weights) >= 0 < sum(weights) < math.inf):
        raise UserError(
            "`--class_weights` must be at least 0, and at least one of them above 0. "
            f"Received: {to_text(weights)}"
        )
    if not experiment.losses or len(set(experiment.losses)) < len(experiment.losses):
        raise UserError(
            "`--losses` must hold at least one name and none twice. "
            f"Received: {to_text(experiment.losses)}"
        )
    for name in experiment.losses:
        require_known("losses", name, LOSSES)
    if experiment.schedule == "halving" and experiment.halve_every < 1:
        raise UserError(
            "`--halve_every` must be at least 1 for `--schedule=halving`. "
            f"Received: {experiment.halve_every}"
        )


def _check_data(experiment) -> None:
    splits, weights = experiment.train_split, experiment.mixture_weights
    if not splits or not all(splits):
        raise UserError(
            f"`--train_split` must hold at least one name. Received: {to_text(splits)!r}"
        )
    if weights and len(weights) != len(splits):
        raise UserError(
            f"`--mixture_weights` must hold a number for each of the {len(splits)} splits. "
            f"Received: {to_text(weights)}"
        )
    if weights and not (min(weights) > 0 and sum(weights) < math.inf):
        raise UserError(
            f"`--mixture_weights` must be finite and above 0. Received: {to_text(weights)}"
        )
    if not 0 < experiment.min_scale <= experiment.max_scale:
        raise UserError(
            "`--min_scale` must be above 0 and at most `--max_scale`. "
            f"Received: {experiment.min_scale} and {experiment.max_scale}"
        )
    size = experiment.crop_size
    if len(size) != 2 or min(size) < 1:
        raise UserError(
            f"`--crop_size` must be height,width, each at least 1. Received: {to_text(size)}"
        )
    if math.prod(size) > _MOST_PIXELS:
        raise UserError(
            f"`--crop_size` must have at most {_MOST_PIXELS:,} pixels. Received: {to_text(size)}"
        )


def check_crop(experiment: Any) -> None:
    """Checks the crop of a training. An inference may use another output stride than the training.

    Raises:
        UserError: The crop is too small for the network.
    """
    stride = experiment.output_stride or 32
    if min(experiment.crop_size) < 2 * stride:
        raise UserError(
            f"`--crop_size` must be height,width, each at least twice the output stride {stride}. "
            f"Received: {to_text(experiment.crop_size)}"
        )


def require_known(name: str, value: str, names: Collection[str]) -> None:
    """Raises `UserError` if the value of a flag is not one of the names."""
    if value not in names:
        raise UserError(f"`--{name}` must be one of {', '.join(names)}. Received: {value!r}")


def to_text(value: Any) -> str:
    """Returns a value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
