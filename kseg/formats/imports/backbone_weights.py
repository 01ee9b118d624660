"""Imports official DeepLab checkpoints, and weight files of timm, into the backbones of kseg."""

import dataclasses
import os
from collections.abc import Callable, Collection

import keras
import numpy as np

from kseg.backbones import BACKBONES
from kseg.errors import UserError
from kseg.files import atomic_path
from kseg.formats.imports.official_names import (
    OTHER_KIND,
    SCOPES,
    kind_of,
    official_name,
    root_scope,
)
from kseg.formats.imports.torch_files import is_torch_file, open_torch_file
from kseg.formats.imports.torch_names import TORCH_BACKBONES, TORCH_ROOT, torch_name
from kseg.formats.imports.variables import Variables, open_variables

_HDF5_BYTES = 4096  # More than what HDF5 needs for the name and place of a variable.


@dataclasses.dataclass
class Report:
    """What happened to every variable, as lines of text.

    Attributes:
        imported: Variables that were copied from the checkpoint to the network.
        averaged: The official names of those of them that are moving averages.
        zeroed: Biases of the network without a counterpart in the checkpoint. The official network
            has no bias there, which is the same as a bias of zero.
        unused: Variables of the network that are not in the checkpoint and not needed, because they
            belong to layers after the last feature map.
        missing: Variables of the network that are not in the checkpoint.
        mismatched: Variables whose shape in the checkpoint differs from that in the network.
        ignored: Variables of the checkpoint without a counterpart in the network, by their kind.
        unplaced: Kernels of the checkpoint without a counterpart in a network that was to be
            imported as a whole, and which therefore computes something else.
        matched: Official names of the variables of the network.
    """

    imported: list[str] = dataclasses.field(default_factory=list)
    averaged: list[str] = dataclasses.field(default_factory=list)
    zeroed: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    mismatched: list[str] = dataclasses.field(default_factory=list)
    ignored: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    unplaced: list[str] = dataclasses.field(default_factory=list)
    matched: set[str] = dataclasses.field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether the network received all the weights that it computes with."""
        return not (self.missing or self.mismatched or self.unplaced)

    def ignore_others(self, variables: Variables) -> None:
        """Lists the variables of the checkpoint that no variable of the network has matched."""
        for name in sorted(set(variables.shapes) - self.matched):
            self.ignored.setdefault(kind_of(name), []).append(f"{name} {variables.shapes[name]}")

    def refuse_other_kernels(self) -> None:
        """Moves the kernels among the ignored variables to `unplaced`."""
        others = self.ignored.pop(OTHER_KIND, [])
        self.unplaced = [line for line in others if line.split(" (")[0].endswith("weights")]
        if rest := [line for line in others if line not in self.unplaced]:
            self.ignored[OTHER_KIND] = rest

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
        if self.averaged:
            groups.insert(1, ("moving averages taken in place of the weights", self.averaged))
        if self.unplaced:
            groups.append(("kernels that the network does not have", self.unplaced))
        lines = []
        for headline, names in groups:
            lines.append(f"{headline}: {len(names)}")
            lines.extend(f"  {name}" for name in names)
        return "\n".join(lines)


def import_backbone(
    checkpoint: str | os.PathLike, backbone: str, *, moving_averages: bool = True
) -> tuple[keras.Model, Report]:
    """Loads the weights of a backbone from an official checkpoint or a weight file of timm.

    Args:
        checkpoint: See `open_variables`, or a file of torch, see `open_torch_file`.
        backbone: Name of the backbone; a key of `SCOPES`, or one of `TORCH_BACKBONES` for a file of
            torch.
        moving_averages: Whether moving averages are taken for the weights that have one. Defaults
            to True, see `kseg.formats.imports.networks.read_network`.

    Returns:
        The network as `Backbone.application` builds it, whose weight file `Backbone` loads, and a
        report on every variable. Missing variables keep their random initial values.

    Raises:
        UserError: If there are no checkpoints of the backbone, or if the checkpoint cannot be read
            or holds no variable of the backbone.
    """
    from_torch = is_torch_file(checkpoint)
    known = sorted(TORCH_BACKBONES if from_torch else SCOPES)
    if backbone not in known:
        where = " for a weight file of torch" if from_torch else ""
        raise UserError(f"`--backbone` must be one of {known}{where}. Received: {backbone!r}")
    variables = (open_torch_file if from_torch else open_variables)(checkpoint)
    averages = variables.moving_averages() if moving_averages else []
    if moving_averages:
        variables = variables.averaged()
    root = TORCH_ROOT if from_torch else root_scope(backbone)
    if not any(name.startswith(root) for name in variables.shapes):
        raise UserError(
            f"`--checkpoint` must hold variables of {backbone!r}, whose names begin with {root}. "
            f"Received: {checkpoint}, which holds {variables.scopes()}"
        )
    record = BACKBONES[backbone]
    network = record.application(include_top=False, weights=None, input_shape=(None, None, 3))
    needed = {layer.name for layer in keras.Model(network.input, record.tapped(network)).layers}
    report = Report()
    name_of = torch_name if from_torch else official_name
    copy_backbone(variables, backbone, network, report, needed, name_of)
    imported = {line.split(" -> ")[0] for line in report.imported}
    report.averaged = [name for name in averages if name in imported]
    report.ignore_others(variables)
    return network, report


def copy_backbone(
    variables: Variables,
    backbone: str,
    network: keras.Model,
    report: Report,
    needed: Collection[str] | None = None,
    name_of: Callable[[str, keras.Layer, keras.Variable], str] = official_name,
) -> None:
    """Copies the variables of a backbone into a network.

    Args:
        variables: The variables of the checkpoint.
        backbone: A key of `SCOPES`.
        network: The network whose layers have the names of those of `Backbone.application`.
        report: Receives a line for each variable of the network.
        needed: Names of the layers that compute a feature map. Defaults to None: all of them.
        name_of: Function from a backbone, a layer and its variable to the name of the variable in
            the checkpoint. Defaults to `official_name`.
    """
    # slim's ResNets read RGB, those of Keras BGR.
    reads_bgr = BACKBONES[backbone].normalization == "caffe"
    for layer in network.layers:
        for variable in layer.weights:
            name = name_of(backbone, layer, variable)
            copy_variable(
                variables,
                name,
                variable,
                layer.name,
                report,
                reverse_inputs=reads_bgr and name == f"{root_scope(backbone)}conv1/weights",
                zero_bias=True,
                needed=needed is None or layer.name in needed,
            )


def copy_variable(
    variables: Variables,
    name: str,
    variable: keras.Variable,
    layer: str,
    report: Report,
    *,
    reverse_inputs: bool = False,
    zero_bias: bool = False,
    needed: bool = True,
) -> None:
    """Copies one variable into a network, and reports what happened.

    Args:
        variables: The official variables.
        name: The official name.
        variable: The variable of the network.
        layer: Name of its layer, for the report.
        report: Receives the line.
        reverse_inputs: Whether the input channels of the kernel are in the reverse order.
        zero_bias: Whether a bias that is not among the official variables is zero, because the
            official convolution has none.
        needed: Whether the network needs the variable.
    """
    shape = tuple(variable.shape)
    target = f"{layer}/{variable.name} {shape}"
    report.matched.add(name)
    if variables.shapes.get(name) == shape:
        value = variables.read(name)
        variable.assign(value[:, :, ::-1].copy() if reverse_inputs else value)
        report.imported.append(f"{name} -> {target}")
    elif name in variables.shapes:
        report.mismatched.append(f"{name} {variables.shapes[name]} -> {target}")
    elif zero_bias and variable.name == "bias":
        variable.assign(np.zeros(shape, "float32"))
        report.zeroed.append(target)
    else:
        (report.missing if needed else report.unused).append(f"{name} -> {target}")


def write_weights(network: keras.Model, output: str | os.PathLike) -> None:
    """Writes a weight file atomically and creates its folder if needed."""
    with atomic_path(output) as partial:
        # HDF5 prints tracebacks of its own, and may crash, when the disk is full. So it is tried
        # before; the file of HDF5 replaces this one.
        with open(partial, "wb") as file:
            size = sum(np.asarray(weight).nbytes + _HDF5_BYTES for weight in network.weights)
            file.write(bytes(size))
        network.save_weights(partial)
