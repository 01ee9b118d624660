"""Imports official quantised DeepLabv3 networks on MobileNetV2 from their .tflite files.

The kernels of such a network are 8-bit integers with one scale for each kernel; they become floats
without any loss. Which convolution is which follows from the graph of the file: each convolution
of kseg's network must have a counterpart with the same kernel shape, stride, dilation rate,
activation and input. Names in the file are only reported. Two things cannot be taken as they are:

Normalisation of the image. The network sees a level x as x / 128 - 1, those of kseg as
x / 127.5 - 1. The kernel of the first convolution is multiplied by 127.5 / 128, and its bias is
corrected. This is exact wherever its window is inside the image. At the border both networks pad
with zeros, which stand for the level 128 there and 127.5 here: the imported network computes what
the network of the file would compute if it padded with 127.5. No kernel and bias can change that.

Batch normalisations. The file has none: they are folded into kernels and biases. A normalisation
with mean 0 and variance 1 would be right in inference, but training would normalise maps that
never were normalised. Therefore each one gets the statistics of its inputs, measured on
photographs, and a scale and an offset that undo them. Folding also leaves filters of very different
norms, most of them too small for a usual learning rate; each one is multiplied by a power of two,
which the normalisation undoes.

The integers of the file also bound the range of each map and round it; floats do neither.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from kseg.backbones.atrous import OUTPUT_STRIDES
from kseg.errors import UserError
from kseg.formats.imports import norm_statistics
from kseg.formats.imports.imported_network import ImportedNetwork
from kseg.formats.imports.labels import label_set_of
from kseg.formats.imports.tflite_graph import (
    IMAGE,
    Convolution,
    Graph,
    Position,
    Source,
    read_graph,
)
from kseg.layers.context_module import broadcast_like, pool_image
from kseg.layers.types import Tensor
from kseg.models import Segmenter
from kseg.models.feature_maps import deepest
from kseg.runs.experiment import Experiment

_KIND = "a quantised DeepLabv3 on MobileNetV2 without ASPP and decoder"
_HEAD = 4  # Number of convolutions after the backbone.
_LEVEL_SCALE = 127.5  # `ImageNormalization("tf")` is x / 127.5 - 1.


@dataclasses.dataclass(frozen=True)
class _Target:
    """A convolution of the network, what it is and where, and the normalisation after it."""

    layer: layers.Layer
    position: Position
    norm: layers.BatchNormalization | None = None


def read_tflite_network(
    path: str | os.PathLike, images: Iterable[np.ndarray], *, classes: str | os.PathLike = ""
) -> ImportedNetwork:
    """Reads a quantised network and gives it batch normalisations that can be trained.

    Args:
        path: The .tflite file.
        images: Photographs like those that the network was trained on, on which the statistics of
            its batch normalisations are measured: uint8 arrays `(height, width, 3)`, RGB, of any
            sizes; at least one. See `norm_statistics.fit`.
        classes: The classes; see `kseg.formats.imports.labels.label_set_of`.

    Raises:
        UserError: The file is missing, damaged or of another kind, or it has another number of
            classes.
    """
    graph = read_graph(path)
    outputs = _number_of_outputs(graph, path)
    label_set = label_set_of(outputs, classes)
    if outputs != label_set.num_classes:
        raise UserError(
            f"{path} must have {label_set.num_classes} classes ({', '.join(label_set.names[:3])}, "
            f"...). Received: {outputs}"
        )
    stride = math.prod(found.position.stride for found in graph.convolutions)
    if stride not in OUTPUT_STRIDES:
        raise UserError(f"{path} must be {_KIND}, of stride 8, 16 or 32. Received: {stride}")
    experiment = Experiment(
        backbone="mobilenet_v2", context="none", decoder=False, output_stride=stride
    )
    model = experiment.build_model(label_set.num_classes)
    targets = _targets(model)
    lines = []
    for target, found in zip(targets, _matched(graph, targets, path), strict=True):
        kernel, bias = _weights(graph, found)
        target.layer.kernel.assign(kernel)
        if target.norm is None:
            target.layer.bias.assign(bias)
        else:
            norm_statistics.set_as_bias(target.norm, bias)
        lines.append(f"  {found.name} -> {target.layer.kernel.path} {kernel.shape}")
    fitted = [norm_statistics.fit(image, graph.image_size, model.pad_value) for image in images]
    statistics = norm_statistics.measure(_normed_maps(model, targets), fitted)
    for target in targets:
        if target.norm is not None:
            norm_statistics.set_statistics(target.norm, *statistics[target.layer.kernel.path])
            norm_statistics.scale_filters(target.layer, target.norm)
    model.set_classes(label_set.names, label_set.colours)
    report = [
        f"imported: {len(lines)} kernels with their biases",
        *lines,
        f"measured on {len(fitted)} images: the statistics of {len(statistics)} batch "
        "normalisations",
    ]
    if len(fitted) < norm_statistics.ENOUGH_IMAGES:
        report.append(
            f"warning: at least {norm_statistics.ENOUGH_IMAGES} images are needed for statistics "
            "that a training can start from; inference does not depend on them"
        )
    return ImportedNetwork(
        experiment=experiment,
        model=model,
        label_set=label_set,
        report="\n".join(report),
        complete=True,  # A convolution without a counterpart is an error.
        source=Path(path).name,
    )


def _number_of_outputs(graph: Graph, path: str | os.PathLike) -> int:
    kind, *parts = graph.output
    if kind != "convolution":
        raise UserError(f"{path} must be {_KIND}. Its result is not that of a convolution")
    return graph.convolutions[parts[0]].position.kernel_shape[-1]


def _targets(model: Segmenter) -> list[_Target]:
    """Returns the convolutions of the network: those of the backbone in order, then the head."""
    targets = _trunk(model.get_layer("mobilenet_v2"))
    context, features = model.get_layer("context"), ("convolution", len(targets) - 1)

    def add(layer, source, norm) -> Source:
        activation = "none" if norm is None else "relu"
        position = Position(tuple(layer.kernel.shape), False, 1, 1, activation, source)
        targets.append(_Target(layer, position, norm))
        return ("convolution", len(targets) - 1)

    pooled, pointwise = (
        add(block.convolution, source, block.norm)
        for block, source in (
            (context.image_pooling, ("pool", features)),
            (context.pointwise, features),
        )
    )
    project = context.project
    projected = add(project.convolution, ("concat", pooled, pointwise), project.norm)
    add(model.get_layer("logits"), projected, None)
    return targets


def _trunk(network: keras.Model) -> list[_Target]:
    """Returns the convolutions of a backbone of `keras.applications`, in order."""
    found: list[dict] = []
    sources: dict[int, Source] = {id(network.input): IMAGE}
    for layer in network.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        if isinstance(layer, layers.Add):
            source = ("add", frozenset(sources[id(tensor)] for tensor in layer.input))
        else:
            source = sources[id(layer.input)]
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            position = Position(
                kernel_shape=tuple(layer.kernel.shape),
                depthwise=isinstance(layer, layers.DepthwiseConv2D),
                stride=layer.strides[0],
                # A kernel of one pixel has no rate, whatever the layer says.
                dilation_rate=layer.dilation_rate[0] if max(layer.kernel_size) > 1 else 1,
                activation="none",
                source=source,
            )
            found.append({"layer": layer, "position": position})
            source = ("convolution", len(found) - 1)
        elif isinstance(layer, layers.BatchNormalization):
            found[source[1]]["norm"] = layer
        elif isinstance(layer, layers.ReLU):  # Every one in MobileNetV2 is bounded by 6.
            position = found[source[1]]["position"]
            found[source[1]]["position"] = dataclasses.replace(position, activation="relu6")
        sources[id(layer.output)] = source
    return [_Target(**arguments) for arguments in found]


def _matched(
    graph: Graph, targets: Sequence[_Target], path: str | os.PathLike
) -> list[Convolution]:
    """Finds the convolution of the file for each one of the network, by what it reads.

    In these networks no two convolutions read the same, so that the order in the file plays no
    role.
    """
    by_source = {found.position.source: n for n, found in enumerate(graph.convolutions)}
    numbers: list[int] = []  # In the file, of those that are matched.
    for target in targets:
        position = dataclasses.replace(
            target.position, source=_in_file(target.position.source, numbers)
        )
        number = by_source.get(position.source)
        found = None if number is None else graph.convolutions[number].position
        if found != position:
            name = target.layer.kernel.path.removesuffix("/kernel")
            raise UserError(
                f"{path} must be {_KIND}. Its counterpart of {name} must be: {position}. "
                f"Received: {found or 'none'}"
            )
        numbers.append(number)
    if len(numbers) != len(graph.convolutions):
        raise UserError(
            f"{path} must be {_KIND}, which has {len(numbers)} convolutions. "
            f"Received: {len(graph.convolutions)}"
        )
    return [graph.convolutions[number] for number in numbers]


def _in_file(source: Source, numbers: Sequence[int]) -> Source:
    """Returns a source of the network with the numbers that its convolutions have in the file."""
    kind, *parts = source
    if kind == "convolution":
        return (kind, numbers[parts[0]])
    if kind == "add":
        return (kind, frozenset(_in_file(part, numbers) for part in parts[0]))
    return (kind, *(_in_file(part, numbers) for part in parts))


def _weights(graph: Graph, found: Convolution) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias; those of the first convolution for the images of kseg."""
    if found.position.source != IMAGE:
        return found.kernel, found.bias
    # A level is z * 127.5 + 127.5 with the z of kseg, and scale * (level - zero) in the file.
    kernel = found.kernel * np.float32(graph.image_scale * _LEVEL_SCALE)
    offset = graph.image_scale * (_LEVEL_SCALE - graph.image_zero)
    bias = found.bias + np.float32(offset) * found.kernel.sum((0, 1, 2))
    return kernel, bias


def _normed_maps(
    model: Segmenter, targets: Sequence[_Target]
) -> Callable[[Tensor], dict[str, Tensor]]:
    """Returns the function from images to the inputs of all batch normalisations.

    Their names are the paths of the kernels before them.
    """
    backbone, context = model.get_layer("mobilenet_v2"), model.get_layer("context")
    prepare = keras.Model(model.inputs, model.get_layer("pad_to_stride").output)
    inputs = {target.layer.kernel.path: target.norm.input for target in targets[:-_HEAD]}
    trunk = keras.Model(backbone.input, [inputs, deepest(backbone.output)])

    def maps(images):
        found, features = trunk(prepare(images))
        pooled = pool_image(features)
        branches = [
            broadcast_like(context.image_pooling(pooled), features),
            context.pointwise(features),
        ]
        for block, block_inputs in (
            (context.image_pooling, pooled),
            (context.pointwise, features),
            (context.project, keras.ops.concatenate(branches, axis=-1)),
        ):
            found[block.convolution.kernel.path] = block.convolution(block_inputs)
        return found

    return maps
