"""The variables of a network of TensorFlow 1, from a checkpoint or from a frozen graph."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from kseg.errors import UserError, first_line

FROZEN_GRAPH = "frozen_inference_graph.pb"  # The name in the official tar files.
CLASSIFIER = "logits/semantic"
AVERAGE = "/ExponentialMovingAverage"

_ARCHIVE = re.compile(r"\.(tar|tgz|tar\.\w+)$")
_PART = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
# The last part of the name of a variable. The other constants of a graph are sizes and the like.
_VARIABLE = re.compile(
    r"/(weights|depthwise_weights|biases|gamma|beta|moving_mean|moving_variance)$"
)


@dataclasses.dataclass(frozen=True)
class Variables:
    """Named arrays that are read one by one.

    Attributes:
        path: Where they come from, for messages.
        shapes: The shape of each variable by its name.
        get: Function that reads a variable by its name.
    """

    path: str
    shapes: dict[str, tuple[int, ...]]
    get: Callable[[str], np.ndarray]

    def read(self, name: str) -> np.ndarray:
        """Reads a variable.

        Raises:
            UserError: If the file is damaged there, or holds values that are not supported.
        """
        try:
            return self.get(name)
        except UserError:
            raise  # It is a ValueError, but says itself what is wrong.
        except (tf.errors.OpError, IndexError, ValueError) as error:  # IndexError if truncated.
            reason = first_line(error)
            raise UserError(f"{self.path} is damaged: {name} cannot be read: {reason}") from error

    def scopes(self) -> str:
        """Returns the first parts of the names as a text, for messages."""
        scopes = sorted({name.split("/")[0] for name in self.shapes})
        return ", ".join(scopes[:8]) + (", ..." if len(scopes) > 8 else "")

    def moving_averages(self) -> list[str]:
        """Returns the names of the variables that have a moving average, sorted."""
        return sorted(name.removesuffix(AVERAGE) for name in self.shapes if name.endswith(AVERAGE))

    def averaged(self) -> "Variables":
        """Returns the variables with moving averages in the place of those that have one."""
        averages = set(self.moving_averages())
        shapes = {name: self.shapes[name] for name in self.shapes if not name.endswith(AVERAGE)}
        return dataclasses.replace(
            self,
            shapes=shapes | {name: self.shapes[name + AVERAGE] for name in averages},
            get=lambda name: self.get(name + AVERAGE if name in averages else name),
        )

    def without_first_class(self) -> "Variables":
        """Returns the variables with a classifier that lacks the first class."""
        cut = {f"{CLASSIFIER}/weights", f"{CLASSIFIER}/biases"} & self.shapes.keys()
        return dataclasses.replace(
            self,
            shapes=self.shapes
            | {name: (*self.shapes[name][:-1], self.shapes[name][-1] - 1) for name in cut},
            get=lambda name: self.get(name)[..., 1:] if name in cut else self.get(name),
        )


def open_variables(path: str | os.PathLike) -> Variables:
    """Opens a checkpoint of TensorFlow 1, or a frozen graph.

    Args:
        path: The prefix of a checkpoint (`model.ckpt`), one of its files, a frozen graph (`.pb`),
            or a folder. Of a folder, the checkpoint is opened that its file `checkpoint` names,
            else the only checkpoint, else `frozen_inference_graph.pb`.

    Returns:
        The variables. A scope around the whole network, as a graph that was imported into another
        one has it, is removed from the names if only one network is there.

    Raises:
        UserError: If there is no such file, if there are several, or if it cannot be read.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        path = _file_of_folder(Path(path))
    elif _ARCHIVE.search(path):
        raise UserError(
            "`--checkpoint` must be a checkpoint or its folder, not an archive: unpack it first, "
            f"`tar -xf {path}`. Received: {path}"
        )
    return _without_outer_scope((_open_graph if path.endswith(".pb") else _open_checkpoint)(path))


def _file_of_folder(folder: Path) -> str:
    """Returns the prefix of the checkpoint, or the frozen graph, that a folder holds."""
    # None if there is no file `checkpoint`, or if it names files that are elsewhere.
    latest = tf.train.latest_checkpoint(folder)
    if latest:
        return latest
    prefixes = sorted(str(file.with_suffix("")) for file in folder.glob("*.index"))
    if len(prefixes) > 1:
        raise UserError(
            f"`--checkpoint` must be one of the checkpoints {', '.join(prefixes[:8])}. "
            f"Received: {folder}, the folder of all of them"
        )
    if prefixes:
        return prefixes[0]
    if (folder / FROZEN_GRAPH).is_file():
        return str(folder / FROZEN_GRAPH)
    raise UserError(
        "`--checkpoint` must hold a checkpoint of TensorFlow 1 (a file that ends in .index) or "
        f"{FROZEN_GRAPH}. Received: {folder}"
    )


def _open_checkpoint(path: str) -> Variables:
    try:
        reader = tf.train.load_checkpoint(_PART.sub("", path))
        shapes = reader.get_variable_to_shape_map()
    except (ValueError, tf.errors.OpError) as error:
        reason = first_line(error)
        raise UserError(
            "`--checkpoint` must be the prefix of a TF1 checkpoint, such as model.ckpt for the "
            f"file model.ckpt.index. Received: {path}: {reason}"
        ) from error
    return Variables(path, {name: tuple(shapes[name]) for name in shapes}, reader.get_tensor)


def _open_graph(path: str) -> Variables:
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(Path(path).read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(
            f"`--checkpoint` must be a frozen graph of TensorFlow. Received: {path}: {error}"
        ) from error
    constants = {
        node.name: node.attr["value"].tensor
        for node in graph.node
        if node.op == "Const"
        and _VARIABLE.search(node.name)
        and tf.dtypes.as_dtype(node.attr["value"].tensor.dtype).is_floating
    }
    if not constants:
        raise UserError(
            "`--checkpoint` must be a graph whose float constants have the names of the variables "
            f"that they were, such as {CLASSIFIER}/weights. Received: {path}, in which no constant "
            "has such a name, as in graphs that were optimised or quantised"
        )
    shapes = {
        name: tuple(side.size for side in constants[name].tensor_shape.dim) for name in constants
    }
    return Variables(path, shapes, lambda name: tf.make_ndarray(constants[name]))


def _without_outer_scope(variables: Variables) -> Variables:
    classifier = f"{CLASSIFIER}/weights"
    scopes = [
        name.removesuffix(classifier)
        for name in variables.shapes
        if name.endswith(f"/{classifier}")
    ]
    # A network outside of the scope is the one that is trained, and the other one a copy of it.
    if len(scopes) != 1 or classifier in variables.shapes:
        return variables
    (scope,) = scopes
    names = {name: name for name in variables.shapes if not name.startswith(scope)}
    names |= {name.removeprefix(scope): name for name in variables.shapes if name.startswith(scope)}
    return dataclasses.replace(
        variables,
        shapes={short: variables.shapes[name] for short, name in names.items()},
        get=lambda short: variables.get(names[short]),
    )
