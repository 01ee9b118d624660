"""Imports whole networks of the official DeepLab code, in TensorFlow 1's formats."""

import os
from collections.abc import Sequence
from pathlib import Path

from kseg.backbones import BACKBONES
from kseg.errors import UserError
from kseg.formats.imports.backbone_weights import Report, copy_backbone, copy_variable
from kseg.formats.imports.imported_network import ImportedNetwork
from kseg.formats.imports.labels import label_set_of
from kseg.formats.imports.official_networks import OFFICIAL_RATES, head_variables, recognise
from kseg.formats.imports.variables import open_variables
from kseg.runs.experiment import Experiment
from kseg.runs.rules import to_text


def read_network(
    path: str | os.PathLike,
    *,
    classes: str | os.PathLike = "",
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    dilation_rates: Sequence[int] | None = None,
    moving_averages: bool = True,
) -> ImportedNetwork:
    """Reads a network of the official DeepLab code.

    Args:
        path: The prefix of a checkpoint, the folder of an official tar file, or a frozen graph; see
            `kseg.formats.imports.variables.open_variables`.
        classes: The classes; see `kseg.formats.imports.labels.label_set_of`.
        output_stride: 8, 16 or 32. The variables fit all of them. Defaults to 16 (the official
            training commands).
        multi_grid: Three factors of the dilation of the last stage. Defaults to None, all 1
            (official, except for ResNets).
        dilation_rates: The rates of ASPP, as many as the checkpoint has. Defaults to the official
            ones: (12, 24, 36) at output stride 8, (6, 12, 18) at 16, (3, 6, 9) at 32.
        moving_averages: Whether moving averages are taken for the weights that have one. Defaults
            to True, as in slim's `mobilenet_example.ipynb`, whose `variables_to_restore` does it.

    Returns:
        The network. Variables that are missing in the checkpoint, or that have another shape, keep
        random values; then `complete` is False.

    Raises:
        UserError: If the file cannot be read, if it does not hold a network that kseg has, or if
            the classes or rates do not fit it.
    """
    variables = open_variables(path)
    averages = variables.moving_averages()
    if moving_averages:
        variables = variables.averaged()
    options, num_classes = recognise(variables)
    label_set = label_set_of(num_classes, classes)
    if without_other := label_set.num_classes == num_classes - 1:
        variables = variables.without_first_class()
    options |= {
        "output_stride": output_stride,
        "multi_grid": multi_grid and tuple(multi_grid),
        "dilation_rates": _rates(options, output_stride, dilation_rates),
    }
    experiment = Experiment(**options)
    model = experiment.build_model(label_set.num_classes)
    model.set_classes(label_set.names, label_set.colours)

    backbone = options["backbone"]
    report = Report()
    copy_backbone(variables, backbone, model.get_layer(BACKBONES[backbone].name), report)
    for name, layer, variable in head_variables(model):
        copy_variable(variables, name, variable, layer, report)
    report.ignore_others(variables)
    report.refuse_other_kernels()
    lines = [
        _summary(options, label_set.num_classes),
        f"moving averages taken in place of the weights: {len(averages) * moving_averages} of "
        f"{len(averages)} in the checkpoint",
    ]
    if without_other:
        lines.append("class 0 of the checkpoint, which is ignored in ADE20K, is left out")
    return ImportedNetwork(
        experiment,
        model,
        label_set,
        report="\n".join([*lines, report.text()]),
        complete=report.complete,
        source=Path(variables.path).name,
    )


def _rates(
    options: dict[str, object], output_stride: int, given: Sequence[int] | None
) -> tuple[int, ...] | None:
    """Returns the dilation rates; None for a network without them."""
    count = len(options.get("dilation_rates", ()))
    if given is None and count in (0, 3):
        # Other output strides are refused with the network.
        return OFFICIAL_RATES.get(output_stride, OFFICIAL_RATES[16]) if count else None
    if given is None or len(given) != count:
        raise UserError(
            f"`--dilation_rates` must hold {count} rates, as many as the checkpoint has. "
            f"Received: {to_text(tuple(given or ())) or 'none'}"
        )
    return tuple(given) or None


def _summary(options: dict[str, object], num_classes: int) -> str:
    flags = (f"--{name}={to_text(value)}" for name, value in options.items() if value is not None)
    return f"network: {' '.join(flags)}, {num_classes} classes"
