"""Imports official DeepLab checkpoints into the backbones of kseg."""

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
from kseg.formats.imports.official_names import SCOPES, kind_of, official_name, root_scope

_HDF5_BYTES = 4096  # More than what HDF5 needs for the name and place of a variable.


@dataclasses.dataclass
class Report:
    """What happened to every variable, as lines of text.

    Attributes:
        imported: Variables that were copied from the checkpoint to the network.
        zeroed: Biases of the network without a counterpart in the checkpoint. The official network
            has no bias there, which is the same as a bias of zero.
        unused: Variables of the network that are not in the checkpoint and not needed, because they
            belong to layers after the last feature map.
        missing: Variables of the network that are not in the checkpoint.
        mismatched: Variables whose shape in the checkpoint differs from that in the network.
        ignored: Variables of the checkpoint without a counterpart in the network, by their kind.
    """

    imported: list[str] = dataclasses.field(default_factory=list)
    zeroed: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    mismatched: list[str] = dataclasses.field(default_factory=list)
    ignored: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the network received all the weights that it computes with."""
        return not (self.missing or self.mismatched)

    def text(self) -> str:
        """Returns the report with a headline for each group and a line for each variable."""
        groups = [
            ("imported", self.imported),
            ("set to zero (biases that the official network does not have)", self.zeroed),
            ("not needed (after the last feature map)", self.unused),
            *((f"ignored ({kind})", names) for kind, names in sorted(self.ignored.items())),
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
        checkpoint: Its prefix (`model.ckpt`), one of its files, or a folder, whose newest
            checkpoint is opened.

    Returns:
        The reader that `tf.train.load_checkpoint` returns; its class has no public name.

    Raises:
        UserError: If there is no such checkpoint, or if it cannot be read.
    """
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", os.fspath(checkpoint))
    try:
        return tf.train.load_checkpoint(prefix)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "`--checkpoint` must be the prefix of a TF1 checkpoint, such as model.ckpt for the "
            f"file model.ckpt.index. Received: {checkpoint}: {reason}"
        ) from error


def import_backbone(checkpoint: str | os.PathLike, backbone: str) -> tuple[keras.Model, Report]:
    """Loads the weights of a backbone from an official checkpoint.

    Args:
        checkpoint: See `open_checkpoint`.
        backbone: Name of the backbone; a key of `SCOPES`.

    Returns:
        The network as `Backbone.application` builds it, whose weight file `Backbone` loads, and a
        report on every variable. Missing variables keep their random initial values.

    Raises:
        UserError: If there are no official checkpoints of the backbone, or if the checkpoint
            cannot be read or holds no variable of the backbone.
    """
    if backbone not in SCOPES:
        raise UserError(f"`--backbone` must be one of {sorted(SCOPES)}. Received: {backbone!r}")
    reader = open_checkpoint(checkpoint)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    root = root_scope(backbone)
    if not any(name.startswith(root) for name in shapes):
        scopes = sorted({name.split("/")[0] for name in shapes})
        raise UserError(
            f"`--checkpoint` must hold variables of {backbone!r}, whose names begin with {root}. "
            f"Received: {checkpoint}, which holds {', '.join(scopes[:8])}"
        )
    record = BACKBONES[backbone]
    network = record.application(include_top=False, weights=None, input_shape=(None, None, 3))
    needed = {layer.name for layer in keras.Model(network.input, record.tapped(network)).layers}
    report, matched = Report(), set()
    for layer in network.layers:
        for variable in layer.weights:
            name = official_name(backbone, layer, variable)
            shape = tuple(variable.shape)
            target = f"{layer.name}/{variable.name} {shape}"
            if shapes.get(name) == shape:
                value = _read(reader, name, checkpoint)
                if record.normalization == "caffe" and name == f"{root}conv1/weights":
                    value = value[:, :, ::-1].copy()  # slim's ResNets read RGB, those of Keras BGR.
                variable.assign(value)
                report.imported.append(f"{name} -> {target}")
            elif name in shapes:
                report.mismatched.append(f"{name} {shapes[name]} -> {target}")
            elif variable.name == "bias":
                variable.assign(np.zeros(shape, "float32"))
                report.zeroed.append(target)
            else:
                group = report.missing if layer.name in needed else report.unused
                group.append(f"{name} -> {target}")
            matched.add(name)
    for name in sorted(set(shapes) - matched):
        report.ignored.setdefault(kind_of(name), []).append(f"{name} {shapes[name]}")
    return network, report


def _read(reader: Any, name: str, checkpoint: str | os.PathLike) -> np.ndarray:
    try:
        return reader.get_tensor(name)
    except (tf.errors.OpError, IndexError) as error:  # IndexError if the file is truncated.
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint} is damaged: {name} cannot be read: {reason}") from error


def write_weights(network: keras.Model, output: str | os.PathLike) -> None:
    """Writes a weight file atomically and creates its folder if needed."""
    with atomic_path(output) as partial:
        # HDF5 prints tracebacks of its own, and may crash, when the disk is full. So it is tried
        # before; the file of HDF5 replaces this one.
        with open(partial, "wb") as file:
            size = sum(np.asarray(weight).nbytes + _HDF5_BYTES for weight in network.weights)
            file.write(bytes(size))
        network.save_weights(partial)
