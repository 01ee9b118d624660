"""One experiment: one frozen record, whose fields are flags and lines of `experiment.flags`."""

import dataclasses
import inspect
from pathlib import Path

import keras
from absl import flags

from kseg.errors import UserError
from kseg.models import BACKBONES, CONTEXTS, deeplab_v3_plus

STRATEGIES = ("default", "mirrored")


def _field(default, help: str):
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides a run. One field = one flag = one line of `experiment.flags`.

    Raises:
        UserError: A value breaks its rule; the message names the flag, the rule and the value.
    """

    data_dir: str = _field("", "Folder of the TFRecord shards and manifests (tfrecords_tools).")
    model_dir: str = _field("", "Folder of the run: flags, checkpoints, logs.")
    train_split: str = _field("train", "Split to train on.")
    val_split: str = _field("val", "Split to measure after each epoch; empty: none.")

    backbone: str = _field("mobilenet_v2", f"One of {', '.join(BACKBONES)}.")
    backbone_weights: str = _field(
        "none", "imagenet (downloads), none, or a weights file of keras.applications' model."
    )
    context: str = _field("ksac", f"Context module, one of {', '.join(CONTEXTS)}.")
    dilation_rates: tuple[int, ...] = _field((), "Rates of the context module; empty: its default.")
    merge: str = _field("", "How KSAC merges its rates, sum or concat; empty: its default.")
    output_stride: int = _field(16, "Input size over the size of the last feature map: 8, 16, 32.")
    decoder: bool = _field(True, "DeepLabv3+'s decoder; without it the network is DeepLabv3.")

    crop_size: tuple[int, ...] = _field(
        (513, 513), "Height and width of a training crop; one number makes a square."
    )
    min_scale: float = _field(0.5, "Smallest random scale.")
    max_scale: float = _field(2.0, "Largest random scale.")
    scale_step: float = _field(0.25, "Step between the random scales; 0: any scale between.")
    flip: bool = _field(True, "Mirror half of the training images left to right.")
    shuffle_buffer: int = _field(2000, "Encoded records held to shuffle among.")

    batch_size: int = _field(16, "Images of a step, over all replicas.")
    epochs: int = _field(50, "Passes over the training split.")
    learning_rate: float = _field(0.007, "Base learning rate of the poly schedule.")
    learning_rate_power: float = _field(0.9, "Exponent of the poly schedule.")
    end_learning_rate: float = _field(0.0, "Learning rate at the last step.")
    momentum: float = _field(0.9, "Momentum of SGD.")
    nesterov: bool = _field(True, "Nesterov's form of the momentum.")
    weight_decay: float = _field(
        4e-5, "The papers' L2: weight_decay * w in the gradient, on convolution kernels only."
    )
    batch_norm_momentum: float = _field(
        0.99,
        "Share of the old moving statistics kept at a step. The official .9997 needs 10,000 steps "
        "before the statistics mean anything; .99 needs about 500.",
    )
    seed: int = _field(0, "Fixes initial weights, dropout, order and augmentation.")
    strategy: str = _field("default", "default (one device) or mirrored (all visible GPUs).")
    log_every: int = _field(20, "Steps between two points in TensorBoard.")
    keep_checkpoints: int = _field(2, "Newest checkpoints kept; the best is kept besides.")

    def __post_init__(self):
        _known("backbone", self.backbone, BACKBONES)
        _known("context", self.context, CONTEXTS)
        _known("strategy", self.strategy, STRATEGIES)
        if len(self.crop_size) == 1:
            object.__setattr__(self, "crop_size", self.crop_size * 2)
        if len(self.crop_size) != 2 or min(self.crop_size) < 2 * self.output_stride:
            raise UserError(
                "`--crop_size` must be height,width, each at least twice `--output_stride`. "
                f"Received: {','.join(map(str, self.crop_size))}"
            )
        if not 0 < self.min_scale <= self.max_scale:
            raise UserError(
                "`--min_scale` must be above 0 and at most `--max_scale`. "
                f"Received: {self.min_scale} and {self.max_scale}"
            )
        for name in ("batch_size", "epochs", "shuffle_buffer", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"`--{name}` must be at least 1. Received: {getattr(self, name)}")
        for name in ("scale_step", "learning_rate", "end_learning_rate", "weight_decay"):
            if getattr(self, name) < 0:
                raise UserError(f"`--{name}` must not be negative. Received: {getattr(self, name)}")
        for name in ("momentum", "batch_norm_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"`--{name}` must be in [0, 1). Received: {getattr(self, name)}")
        self._resolve_context_options()

    def _resolve_context_options(self) -> None:
        """Fills options left empty with the module's own defaults, so that a run records them."""
        taken = inspect.signature(CONTEXTS[self.context]).parameters
        for name in ("dilation_rates", "merge"):
            if name not in taken and getattr(self, name):
                raise UserError(
                    f"`--{name}` is not taken by `--context={self.context}`. "
                    f"Received: {getattr(self, name)}"
                )
            if name in taken and not getattr(self, name):
                object.__setattr__(self, name, taken[name].default)

    def build_model(self, num_classes: int, *, with_backbone_weights: bool = True) -> keras.Model:
        """Builds the network of this experiment.

        Args:
            num_classes: From the data's manifest or the run's labels, never typed.
            with_backbone_weights: False when a checkpoint is about to fill the network.
        """
        weights = self.backbone_weights if with_backbone_weights else "none"
        options = {name: getattr(self, name) for name in ("dilation_rates", "merge")}
        try:
            return deeplab_v3_plus(
                num_classes,
                backbone=self.backbone,
                context=self.context,
                output_stride=self.output_stride,
                decoder=self.decoder,
                backbone_weights=None if weights in ("", "none") else weights,
                **{name: value for name, value in options.items() if value},
            )
        except ValueError as error:
            raise UserError(str(error)) from error

    def replace(self, **changes) -> "Experiment":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_flagfile(self) -> str:
        """The text of a flagfile that gives this experiment back."""
        lines = [f"--{field.name}={_to_text(getattr(self, field.name))}" for field in _fields()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_flagfile(cls, path: str | Path) -> "Experiment":
        """Reads an experiment from a flagfile such as a run's `experiment.flags`.

        Raises:
            UserError: The file is missing or holds an unknown flag or a bad value.
        """
        if not Path(path).is_file():
            raise UserError(f"no flagfile at {path}")
        values = flags.FlagValues()
        define_flags(values)
        try:
            values(["kseg", f"--flagfile={path}"])
        except flags.Error as error:
            raise UserError(f"{path}: {error}") from error
        return from_flags(values)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag for each field of `Experiment`."""
    define = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple[int, ...]: flags.DEFINE_list,
    }
    for field in _fields():
        default = _to_text(field.default) if isinstance(field.default, tuple) else field.default
        help = field.metadata["help"]
        define[field.type](field.name, default, help, flag_values=values)


def from_flags(values: flags.FlagValues) -> Experiment:
    """Reads an experiment from parsed flags."""
    fields = {}
    for field in _fields():
        value = values[field.name].value
        if field.type == tuple[int, ...]:
            try:
                value = tuple(int(item) for item in value)
            except ValueError as error:
                raise UserError(
                    f"`--{field.name}` must be integers joined by commas. "
                    f"Received: {','.join(value)}"
                ) from error
        fields[field.name] = value
    return Experiment(**fields)


def differences(old: Experiment, new: Experiment) -> list[str]:
    """Lines that say in which flags two experiments differ, folders aside."""
    return [
        f"--{field.name}: {_to_text(getattr(old, field.name))} in the run, "
        f"{_to_text(getattr(new, field.name))} asked for"
        for field in _fields()
        if field.name not in ("data_dir", "model_dir")
        and getattr(old, field.name) != getattr(new, field.name)
    ]


def _fields() -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(Experiment)


def _to_text(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _known(name: str, value: str, known) -> None:
    if value not in known:
        raise UserError(f"`--{name}` must be one of {', '.join(known)}. Received: {value!r}")
