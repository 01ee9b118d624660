"""Reads official DeepLab checkpoints into backbones of kseg."""

import dataclasses
import os
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kseg.backbones import BACKBONES
from kseg.errors import UserError
from kseg.files import atomic_path
from kseg.import_checkpoint.official_names import SCOPES, kind_of, official_name, root_scope


@dataclasses.dataclass
class Report:
    """What became of every variable; each line names one.

    Attributes:
        taken: From the checkpoint into the network.
        zeroed: Biases of the network that the checkpoint does without: zero is what it computes.
        dropped: Of the network behind its last feature map and not in the checkpoint; not needed.
        missing: Of the network and not in the checkpoint.
        mismatched: In both, in different shapes.
        left: Of the checkpoint and not of the network, by what the checkpoint keeps them for.
    """

    taken: list[str] = dataclasses.field(default_factory=list)
    zeroed: list[str] = dataclasses.field(default_factory=list)
    dropped: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    mismatched: list[str] = dataclasses.field(default_factory=list)
    left: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the network got all that it computes with."""
        return not (self.missing or self.mismatched)

    def text(self) -> str:
        """Returns the report with a headline for each group and a line for each variable."""
        groups = [
            ("taken", self.taken),
            ("zeroed (biases that the checkpoint does without)", self.zeroed),
            ("dropped (behind the last feature map)", self.dropped),
            *((f"left ({kind})", names) for kind, names in sorted(self.left.items())),
            ("missing in the checkpoint", self.missing),
            ("of another shape", self.mismatched),
        ]
        lines = []
        for headline, names in groups:
            lines.append(f"{headline}: {len(names)}")
            lines.extend(f"  {name}" for name in names)
        return "\n".join(lines)


def open_checkpoint(checkpoint: str | os.PathLike) -> Any:
    """Opens a TF1 checkpoint.

    Args:
        checkpoint: Its prefix (`model.ckpt`), one of its files, or the folder of the newest.

    Returns:
        What `tf.train.load_checkpoint` gives, a class without a public name.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", os.fspath(checkpoint))
    try:
        return tf.train.load_checkpoint(prefix)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "`--checkpoint` must be the prefix of a TF1 checkpoint, such as model.ckpt beside "
            f"model.ckpt.index. Received: {checkpoint}: {reason}"
        ) from error


def import_checkpoint(checkpoint: str | os.PathLike, backbone: str) -> tuple[keras.Model, Report]:
    """Fills the network of a backbone from an official checkpoint.

    Args:
        checkpoint: See `open_checkpoint`.
        backbone: Name of the backbone; one of `SCOPES`.

    Returns:
        The network as `Backbone.application` builds it, whose weight file `Backbone` loads, and
        what became of every variable. What is missing keeps its random value.

    Raises:
        UserError: If the backbone is in no official checkpoint, the checkpoint cannot be read, or
            holds nothing of the backbone.
    """
    if backbone not in SCOPES:
        raise UserError(f"`--backbone` must be one of {sorted(SCOPES)}. Received: {backbone!r}")
    reader = open_checkpoint(checkpoint)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    root = root_scope(backbone)
    if not any(name.startswith(root) for name in shapes):
        scopes = sorted({name.split("/")[0] for name in shapes})
        raise UserError(
            f"{checkpoint} holds nothing of {backbone!r}, whose variables are called {root}... "
            f"It holds: {', '.join(scopes[:8])}"
        )
    record = BACKBONES[backbone]
    network = record.application(include_top=False, weights=None, input_shape=(None, None, 3))
    needed = {layer.name for layer in keras.Model(network.input, record.tapped(network)).layers}
    report, met = Report(), set()
    for layer in network.layers:
        for variable in layer.weights:
            name = official_name(backbone, layer, variable)
            shape = tuple(variable.shape)
            ours = f"{layer.name}/{variable.name} {shape}"
            if shapes.get(name) == shape:
                value = _read(reader, name, checkpoint)
                if record.normalization == "caffe" and name == f"{root}conv1/weights":
                    value = value[:, :, ::-1].copy()  # slim shows its ResNets RGB, Keras BGR.
                variable.assign(value)
                report.taken.append(f"{name} -> {ours}")
            elif name in shapes:
                report.mismatched.append(f"{name} {shapes[name]} -> {ours}")
            elif variable.name == "bias":
                variable.assign(np.zeros(shape, "float32"))
                report.zeroed.append(ours)
            else:
                group = report.missing if layer.name in needed else report.dropped
                group.append(f"{name} -> {ours}")
            met.add(name)
    for name in sorted(set(shapes) - met):
        report.left.setdefault(kind_of(name), []).append(f"{name} {shapes[name]}")
    return network, report


def _read(reader: Any, name: str, checkpoint: str | os.PathLike) -> np.ndarray:
    try:
        return reader.get_tensor(name)
    except (tf.errors.OpError, IndexError) as error:  # IndexError where the file is cut short
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint} is damaged: {name} cannot be read: {reason}") from error


def write_weights(network: keras.Model, output: str | os.PathLike) -> None:
    """Writes a weight file, whole or not at all; makes its folder."""
    with atomic_path(output) as partial:
        network.save_weights(partial)
