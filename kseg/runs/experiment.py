"""One experiment: one frozen record, whose fields are flags and lines of `experiment.flags`."""

import dataclasses
import types
import typing
from collections.abc import Iterable
from pathlib import Path

import keras
from absl import flags

from kseg.errors import UserError
from kseg.runs.rules import PRECISIONS, check, known, to_text
from kseg.models import BACKBONES, CONTEXTS, MODELS, defaults
from kseg.recipe.losses import LOSSES
from kseg.recipe.schedules import SCHEDULES


def _field(default, help: str):
    return dataclasses.field(default=default, metadata={"help": help})


def _option(help: str):
    """A field for an argument of the network or of its context module, of the same name.

    None stands for the argument's own default, and for no such argument.
    """
    help = f"{help} Unset: the default of the network or module."
    return dataclasses.field(default=None, metadata={"help": help, "option": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides a run. One field = one flag = one line of `experiment.flags`.

    Raises:
        UserError: A value breaks its rule; the message names the flag, the rule and the value.
    """

    data_dir: str = _field("", "Folder of the TFRecord shards and manifests (tfrecords_tools).")
    model_dir: str = _field("", "Folder of the run: flags, checkpoints, logs.")
    train_split: tuple[str, ...] = _field(
        ("train",),
        "Split to train on, or several to mix; voc/train is split train of the folder voc in "
        "--data_dir.",
    )
    mixture_weights: tuple[float, ...] = _field(
        (), "Share of each split of a mixture; empty: what it holds."
    )
    val_split: str = _field("val", "Split to measure after each epoch; empty: none.")

    model: str = _field("deeplab_v3_plus", f"Network, one of {', '.join(MODELS)}.")
    backbone: str | None = _option(f"One of {', '.join(BACKBONES)}.")
    backbone_weights: str = _field(
        "none", "imagenet (downloads), none, or a weights file of keras.applications' model."
    )
    output_stride: int | None = _option("Input size over that of the last map: 8, 16 or 32.")
    multi_grid: tuple[int, ...] | None = _option("Three factors on the last stage's dilations.")
    context: str | None = _option(f"deeplab_v3_plus: module, one of {', '.join(CONTEXTS)}.")
    decoder: bool | None = _option("deeplab_v3_plus: without its decoder it is DeepLabv3.")
    decoder_convs: int | None = _option("deeplab_v3_plus: 3x3 convolutions of the decoder.")
    decoder_separable: bool | None = _option("deeplab_v3_plus: whether they are separable.")
    auxiliary: bool | None = _option("deeplab_v3_plus: a second loss before the last stage.")
    kernel: str | None = _option("gcn_fcn: kernel of the heads: gcn, conv, stack or 1x1.")
    conv_stack_channels: int | None = _option("gcn_fcn, kernel stack: channels between.")
    boundary_refinement: bool | None = _option("gcn_fcn: whether maps are refined.")
    upsampling: str | None = _option("gcn_fcn: deconvolution or bilinear.")
    depth: int | None = _option("dfp_fcn: down-samplings after the split, 0 to 5.")
    scales: tuple[float, ...] | None = _option("dfp_fcn: scales of the pyramid.")

    filters: int | None = _option("Context module: channels.")
    dilation_rates: tuple[int, ...] | None = _option("aspp, ksac, vortex: dilation rates.")
    image_pooling: bool | None = _option("Context module: whether it sees the image's mean.")
    dropout_rate: float | None = _option("Context module: share of outputs dropped in training.")
    first_kernel_size: int | None = _option("aspp: kernel of the branch without a rate.")
    separable: bool | None = _option("aspp: whether its convolutions are depthwise-separable.")
    merge: str | None = _option("ksac: how the rates are merged, sum or concat.")
    kernel_sizes: tuple[int, ...] | None = _option("lkspp: kernel sizes.")
    odd_kernels: bool | None = _option("lkspp: whether even kernels become odd.")
    convolution: str | None = _option("lkspp: separable, dense or plain.")
    module: str | None = _option("vortex: A or B.")
    pool_size: int | None = _option("vortex, module A: size of the pooling.")
    kernel_size: int | None = _option("gcn, gcn_fcn: size of the large kernel.")
    bin_sizes: tuple[int, ...] | None = _option("ppm: bins along a side.")

    crop_size: tuple[int, ...] = _field(
        (513, 513), "Height and width of a training crop; one number makes a square."
    )
    min_scale: float = _field(0.5, "Smallest random scale.")
    max_scale: float = _field(2.0, "Largest random scale.")
    scale_step: float = _field(0.25, "Step between the random scales; 0: any scale between.")
    flip: bool = _field(True, "Mirror half of the training images left to right.")
    resize_to_crop: bool = _field(
        False, "Stretch images to the crop before they are scaled (KSAC on ADE20K)."
    )
    vertical_flip: bool = _field(False, "Mirror half of the images upside down (roads).")
    quarter_turns: bool = _field(False, "Turn half of the images by 90 degrees (roads).")
    spatial: bool = _field(False, "Shift and distort half of the images a little (roads).")
    hsv: bool = _field(False, "Shift the colours of half of the images (roads).")
    shuffle_buffer: int = _field(2000, "Encoded records held to shuffle among.")

    batch_size: int = _field(16, "Images of a step, over all replicas.")
    epochs: int = _field(50, "Passes over the training split.")
    steps: int = _field(0, "Steps of the whole training, in place of --epochs; 0: by epochs.")
    learning_rate: float = _field(0.007, "Base learning rate of the schedule.")
    schedule: str = _field("poly", f"How it falls, one of {', '.join(SCHEDULES)}.")
    learning_rate_power: float = _field(0.9, "Exponent of the poly schedule.")
    end_learning_rate: float = _field(0.0, "Learning rate at the last step.")
    halve_every: int = _field(0, "Steps between two halvings of the halving schedule.")
    warm_up_steps: int = _field(0, "Steps of a linear rise of the learning rate at the start.")
    clip_norm: float = _field(0.0, "Largest norm of the whole gradient; 0: not clipped.")
    losses: tuple[str, ...] = _field(("cross_entropy",), f"What is summed, of {', '.join(LOSSES)}.")
    class_weights: tuple[float, ...] = _field((), "Cross-entropy: one a class; empty: all 1.")
    hard_pixels: float = _field(1.0, "Cross-entropy: share of the pixels, the hardest, that count.")
    auxiliary_weight: float = _field(0.4, "What the second loss of --auxiliary counts (PSPNet).")
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
    freeze_batch_norm_epoch: int = _field(
        -1,
        "Batch normalisation is frozen, statistics and weights, after so many epochs (10 in DFP); "
        "0: from the start, -1: never.",
    )
    init_from: str = _field(
        "",
        "Folder of a run (its best checkpoint is taken), or a checkpoint, whose weights training "
        "starts from (a stage before).",
    )
    seed: int = _field(0, "Fixes initial weights, dropout, order and augmentation.")
    precision: str = _field("float32", f"Of the training, one of {', '.join(PRECISIONS)}.")
    strategy: str = _field("default", "default (one device) or mirrored (all visible GPUs).")
    deterministic: bool = _field(
        False, "The same bits in every run, by slower operations where TensorFlow has no others."
    )
    log_every: int = _field(20, "Steps between two points in TensorBoard.")
    save_every: int = _field(0, "Steps between two checkpoints; 0: at the end of epochs only.")
    val_every: int = _field(1, "Epochs between two validations; the last epoch has one besides.")
    keep_checkpoints: int = _field(2, "Newest checkpoints kept; the best is kept besides.")

    def __post_init__(self):
        if len(self.crop_size) == 1:
            object.__setattr__(self, "crop_size", self.crop_size * 2)
        known("model", self.model, MODELS)
        self._resolve_options()
        check(self)

    def _resolve_options(self) -> None:
        """Fills options left unset with their defaults, so that a run records them."""
        taken = defaults(MODELS[self.model])
        where = f"--model={self.model}"
        if "context" in taken:
            context = taken["context"] if self.context is None else self.context
            known("context", context, CONTEXTS)
            taken = defaults(CONTEXTS[context]) | taken
            where = f"--context={context}"
        for name in _options():
            value = getattr(self, name)
            if value is not None and name not in taken:
                raise UserError(f"`--{name}` is not taken by `{where}`. Received: {to_text(value)}")
            if value is None and name in taken:
                object.__setattr__(self, name, taken[name])

    def build_model(self, num_classes: int, *, with_backbone_weights: bool = True) -> keras.Model:
        """Builds the network of this experiment.

        Args:
            num_classes: From the data's manifest or the run's labels, never typed.
            with_backbone_weights: False when a checkpoint is about to fill the network.
        """
        weights = self.backbone_weights if with_backbone_weights else "none"
        options = self.fields(_options())
        try:
            return MODELS[self.model](
                num_classes,
                backbone_weights=None if weights in ("", "none") else weights,
                **{name: value for name, value in options.items() if value is not None},
            )
        except ValueError as error:
            raise UserError(str(error)) from error

    def fields(self, names: Iterable[str]) -> dict:
        """Some of the fields by name."""
        return {name: getattr(self, name) for name in names}

    def replace(self, **changes) -> "Experiment":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_flagfile(self) -> str:
        """The text of a flagfile that gives this experiment back."""
        values = {field.name: getattr(self, field.name) for field in _fields()}
        lines = [
            f"--{name}={to_text(value)}" for name, value in values.items() if value is not None
        ]
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
    }
    for field in _fields():
        kind, is_list = _kind(field)
        default = to_text(field.default) if isinstance(field.default, tuple) else field.default
        help = field.metadata["help"]
        defines = flags.DEFINE_list if is_list else define[kind]
        defines(field.name, default, help, flag_values=values)


def from_flags(values: flags.FlagValues) -> Experiment:
    """Reads an experiment from parsed flags."""
    fields = {}
    for field in _fields():
        value = values[field.name].value
        kind, is_list = _kind(field)
        if is_list and value is not None:
            try:
                value = tuple(kind(item) for item in value)
            except ValueError as error:
                noun = "integers" if kind is int else "numbers"
                raise UserError(
                    f"`--{field.name}` must be {noun} joined by commas. Received: {','.join(value)}"
                ) from error
        # An empty option is an unset one.
        is_option = field.metadata.get("option", False)
        fields[field.name] = None if is_option and value in ("", ()) else value
    return Experiment(**fields)


def differences(old: Experiment, new: Experiment) -> list[str]:
    """Lines that say in which flags two experiments differ, folders aside."""
    return [
        f"--{field.name}: {to_text(getattr(old, field.name))} in the run, "
        f"{to_text(getattr(new, field.name))} asked for"
        for field in _fields()
        if field.name not in ("data_dir", "model_dir")
        and getattr(old, field.name) != getattr(new, field.name)
    ]


def _fields() -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(Experiment)


def _options() -> list[str]:
    return [field.name for field in _fields() if field.metadata.get("option")]


def _kind(field: dataclasses.Field) -> tuple[type, bool]:
    """The type of a field's value or items, and whether it is a list of them."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not types.NoneType)
    is_list = typing.get_origin(kind) is tuple
    return (typing.get_args(kind)[0] if is_list else kind), is_list
