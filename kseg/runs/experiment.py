"""One experiment: a frozen record of everything that decides a run.

Its fields are flags of `kseg.train` and lines of `experiment.flags`; `kseg.runs.experiment_flags`
converts between the two. The options of the network and of its context module are not written
down here: they are read from the network and the module, see `kseg.models.options`.
"""

import dataclasses
from collections.abc import Iterable

from kseg.errors import UserError
from kseg.models import CONTEXTS, MODELS, Segmenter, find_context
from kseg.models.options import Option, options_of
from kseg.recipe.losses import LOSSES
from kseg.recipe.schedules import SCHEDULES
from kseg.runs.options import resolved
from kseg.runs.rules import PRECISIONS, check, require_known

# The headings of `--help`, in this order.
DATA, NETWORK, CONTEXT = "Data", "Network", "Context module"
AUGMENTATION, OPTIMISATION, RUN = "Augmentation", "Optimisation", "Run"


def _field(default, group: str, help: str):
    return dataclasses.field(default=default, metadata={"group": group, "help": help})


@dataclasses.dataclass(frozen=True, kw_only=True, init=False)
class Experiment:
    """Everything that decides a run.

    The constructor takes the fields below as keyword arguments, and besides them the options of
    the network and of its context module, such as `backbone`, `context`, `output_stride` or
    `dilation_rates`. Options that are not given get their defaults, so that a run records them.
    They are read as attributes, too: `experiment.dilation_rates` is None where neither the network
    nor the module has such an option.

    Attributes:
        options: Pairs (name, value) of all options, sorted by name.

    Raises:
        UserError: A value breaks its rule, or an option does not belong to the network or module;
            the message names the flag, the rule and the value.
    """

    data_dir: str = _field("", DATA, "Folder of the TFRecord shards and manifests.")
    model_dir: str = _field("", RUN, "Folder of the run: flags, checkpoints, logs.")
    train_split: tuple[str, ...] = _field(
        ("train",),
        DATA,
        "Split to train on, or several that are mixed. voc/train is the split train of the folder "
        "voc in --data_dir.",
    )
    mixture_weights: tuple[float, ...] = _field(
        (),
        DATA,
        "Fraction of each split in a mixture. Empty: in proportion to the number of images.",
    )
    val_split: str = _field("val", DATA, "Split to measure after each epoch. Empty: none.")

    model: str = _field("deeplab_v3_plus", NETWORK, f"Network, one of {', '.join(MODELS)}.")
    backbone_weights: str = _field(
        "none",
        NETWORK,
        "imagenet (downloaded, for the backbones of keras.applications), none, or a weights file "
        "of the backbone, such as kseg.import_checkpoint writes.",
    )

    crop_size: tuple[int, ...] = _field(
        (513, 513), AUGMENTATION, "Height and width of a training crop; one number for a square."
    )
    min_scale: float = _field(0.5, AUGMENTATION, "Smallest random scale.")
    max_scale: float = _field(2.0, AUGMENTATION, "Largest random scale.")
    scale_step: float = _field(
        0.25, AUGMENTATION, "Step between the random scales. 0: any scale between them."
    )
    horizontal_flip: bool = _field(
        True, AUGMENTATION, "Flip half of the training images left to right."
    )
    vertical_flip: bool = _field(
        False, AUGMENTATION, "Flip half of the training images upside down (roads)."
    )
    quarter_turns: bool = _field(
        False, AUGMENTATION, "Rotate half of the training images by 90 degrees (roads)."
    )
    spatial: bool = _field(
        False,
        AUGMENTATION,
        "Shift, scale and stretch half of the training images slightly (D-LinkNet's recipe).",
    )
    hsv: bool = _field(
        False,
        AUGMENTATION,
        "Shift hue, saturation and value of half of the training images (D-LinkNet's recipe).",
    )
    resize_to_crop: bool = _field(
        False,
        AUGMENTATION,
        "Stretch images to the crop size before they are scaled (KSAC on ADE20K).",
    )
    shuffle_buffer: int = _field(2000, DATA, "Number of encoded records held for shuffling.")

    batch_size: int = _field(16, OPTIMISATION, "Images in a step, over all replicas.")
    epochs: int = _field(50, OPTIMISATION, "Passes over the training split.")
    steps: int = _field(
        0, OPTIMISATION, "Steps of the whole training, which replaces --epochs. 0: use --epochs."
    )
    learning_rate: float = _field(0.007, OPTIMISATION, "Base learning rate of the schedule.")
    schedule: str = _field(
        "poly", OPTIMISATION, f"Schedule of the learning rate, one of {', '.join(SCHEDULES)}."
    )
    learning_rate_power: float = _field(0.9, OPTIMISATION, "Exponent of the poly schedule.")
    end_learning_rate: float = _field(0.0, OPTIMISATION, "Learning rate at the last step (poly).")
    halve_every: int = _field(
        0, OPTIMISATION, "Steps between two halvings of the learning rate (halving)."
    )
    warm_up_steps: int = _field(
        0, OPTIMISATION, "Steps of a linear rise of the learning rate at the start."
    )
    clip_norm: float = _field(
        0.0, OPTIMISATION, "Largest norm of the whole gradient. 0: no clipping."
    )
    losses: tuple[str, ...] = _field(
        ("cross_entropy",), OPTIMISATION, f"Losses that are summed, of {', '.join(LOSSES)}."
    )
    class_weights: tuple[float, ...] = _field(
        (), OPTIMISATION, "Weight of each class in the cross-entropy. Empty: all 1."
    )
    ohem_fraction: float = _field(
        1.0,
        OPTIMISATION,
        "Fraction of the pixels, the hardest ones, that the cross-entropy counts (OHEM).",
    )
    auxiliary_weight: float = _field(
        0.4, OPTIMISATION, "Weight of the second loss of --auxiliary (0.4 in PSPNet)."
    )
    momentum: float = _field(0.9, OPTIMISATION, "Momentum of SGD.")
    nesterov: bool = _field(True, OPTIMISATION, "Whether the momentum is Nesterov's.")
    weight_decay: float = _field(
        4e-5,
        OPTIMISATION,
        "The papers' L2: adds weight_decay * w to the gradient of convolution kernels, depthwise "
        "ones excepted.",
    )
    batch_norm_momentum: float = _field(
        0.99,
        OPTIMISATION,
        "Fraction of the moving statistics that is kept at a step. The official 0.9997 needs "
        "10,000 steps before the statistics are meaningful, 0.99 needs about 500.",
    )
    freeze_batch_norm_epoch: int = _field(
        -1,
        OPTIMISATION,
        "Number of epochs after which batch normalisation is frozen, statistics and weights (10 in "
        "DFP). 0: from the start. -1: never.",
    )
    backbone_learning_rate_factor: float = _field(
        1.0,
        OPTIMISATION,
        "Factor of the learning rate of the backbone, and of its weight decay (0.1 is usual for "
        "fine-tuning).",
    )
    freeze_backbone_epochs: int = _field(
        0,
        OPTIMISATION,
        "Number of epochs at the start in which the backbone is not trained and its batch "
        "normalisation computes as in inference.",
    )
    init_from: str = _field(
        "",
        RUN,
        "Training starts from these weights: the folder of a run, whose best checkpoint is used, a "
        "checkpoint, a .keras file, a folder that kseg.export --format=weights has written, or the "
        "name of a preset.",
    )
    seed: int = _field(0, RUN, "Decides initial weights, dropout, order and augmentation.")
    precision: str = _field(
        "float32", RUN, f"Precision of the training, one of {', '.join(PRECISIONS)}."
    )
    strategy: str = _field(
        "default", RUN, "default for one device, mirrored for all visible GPUs of the machine."
    )
    jit_compile: str = _field(
        "auto",
        RUN,
        "Compile the training step with XLA: auto, true or false. auto: on a GPU with one replica "
        "unless --deterministic is given, and always on JAX.",
    )
    deterministic: bool = _field(
        False,
        RUN,
        "Give the same bits in every run, with slower operations where TensorFlow needs them.",
    )
    log_every: int = _field(20, RUN, "Steps between two points in TensorBoard.")
    save_every: int = _field(0, RUN, "Steps between two checkpoints. 0: only at the end of epochs.")
    val_every: int = _field(
        1, RUN, "Epochs between two validations; there is always one after the last epoch."
    )
    early_stop_after: int = _field(
        0, RUN, "Stop after that many validations without a better mIoU. 0: never."
    )
    keep_checkpoints: int = _field(
        2, RUN, "Number of newest checkpoints that are kept, besides the best one."
    )
    options: tuple[tuple[str, object], ...] = ()

    def __init__(self, **values):
        given = dict(values.pop("options", ()))
        for field in setting_fields():
            object.__setattr__(self, field.name, values.pop(field.name, field.default))
        if len(self.crop_size) == 1:
            object.__setattr__(self, "crop_size", self.crop_size * 2)
        require_known("model", self.model, MODELS)
        given |= values
        given = {name: value for name, value in given.items() if value is not None}
        options = resolved(self.model, given)
        object.__setattr__(self, "options", tuple(sorted(options.items())))
        check(self)

    def __getattr__(self, name: str):
        # Called only for what is not a field: an option, or nothing.
        if name.startswith("_") or name == "options":
            raise AttributeError(name)
        options = dict(self.options)
        if name in options:
            return options[name]
        if name in known_options():
            return None
        raise AttributeError(f"An Experiment has no field or option {name!r}")

    def build_model(self, num_classes: int, *, with_backbone_weights: bool = True) -> Segmenter:
        """Builds the network of this experiment.

        Args:
            num_classes: Number of classes, from the manifest of the data or the labels of a run.
            with_backbone_weights: Whether the weights that `backbone_weights` names are loaded;
                False if a checkpoint is about to replace them.
        """
        weights = self.backbone_weights if with_backbone_weights else "none"
        options = {name: value for name, value in self.options if value is not None}
        try:
            return MODELS[self.model](
                num_classes,
                backbone_weights=None if weights in ("", "none") else weights,
                **options,
            )
        except ValueError as error:
            raise UserError(str(error)) from error

    def fields(self, names: Iterable[str]) -> dict:
        """Returns some of the fields and options by name."""
        return {name: getattr(self, name) for name in names}

    def replace(self, **changes) -> "Experiment":
        """Returns a copy with some fields or options changed."""
        return Experiment(**(self.values() | changes))

    def values(self) -> dict:
        """Returns all fields and options by name."""
        return {field.name: getattr(self, field.name) for field in setting_fields()} | dict(
            self.options
        )

    def differences(self, other: "Experiment") -> dict[str, tuple]:
        """Returns the values of both experiments by name, where they differ; folders excluded."""
        mine, others = self.values(), other.values()
        names = [name for name in dict.fromkeys((*mine, *others)) if name not in FOLDERS]
        return {
            name: (mine.get(name), others.get(name))
            for name in names
            if mine.get(name) != others.get(name)
        }


FOLDERS = ("data_dir", "model_dir")


def setting_fields() -> list[dataclasses.Field]:
    """Returns the fields of `Experiment` that are flags, options excluded."""
    return [field for field in dataclasses.fields(Experiment) if field.name != "options"]


def known_options(contexts: Iterable[str] = ()) -> dict[str, dict[str, Option]]:
    """Returns the options of all networks and context modules.

    Args:
        contexts: Names of further context modules, `package.module:Class`.

    Returns:
        Name of the option -> name of the network or context module -> option.

    Raises:
        UserError: An option has the name of a flag, or types that differ between its owners.
    """
    builders = MODELS | CONTEXTS | {name: find_context(name) for name in contexts}
    found: dict[str, dict[str, Option]] = {}
    reserved = {field.name for field in setting_fields()}
    for owner, builder in builders.items():
        for name, option in options_of(builder).items():
            if name == "output_stride" and owner not in MODELS:
                continue  # It receives that of the network.
            same_name = found.setdefault(name, {})
            types = {(known.kind, known.is_list) for known in same_name.values()}
            if name in reserved or types - {(option.kind, option.is_list)}:
                raise UserError(
                    f"The option `{name}` of {owner!r} must not have the name of another flag, or "
                    "of an option of another type. Rename the argument"
                )
            same_name[owner] = option
    return found
