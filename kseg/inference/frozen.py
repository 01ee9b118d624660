"""Networks for inference only, with batch normalisations folded into the convolutions."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from kseg.inference.compiled import compiles
from kseg.inference.config import InferenceConfig
from kseg.inference.folding import fold_batch_norms
from kseg.layers.kernels import forms
from kseg.models import Segmenter

_Function = tf.types.experimental.PolymorphicFunction


def freeze(
    model: keras.Model, size: tuple[int | None, int | None, int | None] = (None, None, None)
) -> _Function:
    """Turns a network into a function without variables, for inference only.

    Args:
        model: A network of `kseg.models`: RGB images in 0..255 in, logits of the same size out.
        size: The (batch, height, width) that the function accepts; None accepts any number. Known
            numbers become constants of the graph.

    Returns:
        A `tf.function` from float32 images `[batch, height, width, 3]` to float32 logits
        `[batch, height, width, num_classes]`. Every caller uses the same set of constants.
    """
    return _Folded.of(model, size).function({})


class FoldedSegmenter:
    """A network with folded batch normalisations, with what inference asks of a `Segmenter`.

    Args:
        model: The network. Later changes of its weights do not count.
    """

    def __init__(self, model: Segmenter):
        self.num_classes = model.num_classes
        self.pad_value = model.pad_value
        self.align_corners = model.align_corners
        folded = _Folded.of(model, (None, None, None))
        self._network = folded.function(folded.take_kernels())

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the logits of images in inference; `training` has to be False."""
        assert not training
        return self._network(images)


def is_faster_folded(model: keras.Model, is_compiled: bool = False) -> bool:
    """Returns whether a network is folded for many images: on a CPU without XLA, in float32.

    There TensorFlow adds a bias within the convolution, whereas a batch normalisation reads and
    writes the map once more. The measurements are in `experiments/benchmarks.md`.

    Args:
        model: The network.
        is_compiled: Whether XLA compiles it.
    """
    return (
        keras.config.backend() == "tensorflow"
        and not is_compiled
        and not tf.config.get_visible_devices("GPU")
        and model.compute_dtype == "float32"
    )


def for_inference(
    model: Segmenter, config: InferenceConfig | None = None, tile: tuple[int, int] | None = None
) -> Segmenter | FoldedSegmenter:
    """Returns the form of a network that is the fastest one for many images.

    Args:
        model: The network. It must not be trained further.
        config: How images are seen. Defaults to a single view of the whole image.
        tile: Height and width of most images if these are tiles; None for images of any size.
    """
    is_compiled = compiles(config or InferenceConfig(), tile)
    return FoldedSegmenter(model) if is_faster_folded(model, is_compiled) else model


@dataclasses.dataclass
class _Folded:
    """The graph of a network without batch normalisations.

    Attributes:
        images: The specification of its input.
        graph: The `GraphDef`, whose weights are constants.
        source: Name of the node of the images.
        result: Name of the node of the logits.
        shape: Shape of the logits as far as it is known.
        variables: Handles of variables that are no weights of Keras, since a layer keeps a
            `tf.Variable`, by the names of their nodes.
        traced: The function that the graph was taken from, if it calls other functions, which
            TensorFlow removes with it; otherwise None, since it holds the weights a second time.
    """

    images: tf.TensorSpec
    graph: tf.compat.v1.GraphDef
    source: str
    result: str
    shape: tf.TensorShape
    variables: dict[str, tf.Tensor]
    traced: tf.types.experimental.ConcreteFunction | None

    @classmethod
    def of(cls, model: keras.Model, size: tuple[int | None, ...]) -> "_Folded":
        # TensorFlow gives the graph's input the name of this specification.
        images = tf.TensorSpec((*size, 3), tf.float32, name="images")
        weights = [
            [np.asarray(variable) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]

        def network(images):
            # Constants created outside of the function would become inputs of the graph.
            constants = [[tf.constant(value) for value in values] for values in weights]
            outputs, _ = model.stateless_call(*constants, images, training=False)
            # Auxiliary logits, which are for training only, come after those of the network.
            return tf.identity(keras.tree.flatten(outputs)[0], "logits")

        # The graph does not depend on the machine that writes it. XLA compiles nothing in it but
        # convolutions with groups, for which Keras demands it.
        with forms.assumed(device="CPU", xla=False, replicas=1, truncates=False):
            traced = tf.function(network, autograph=False).get_concrete_function(images)
        (logits,) = traced.outputs
        captures = {inner.op.name: outer for outer, inner in traced.graph.captures}
        graph = _with_captured_constants(traced.graph.as_graph_def(), captures)
        graph = fold_batch_norms(graph, logits.op.name)
        inputs = {node.name for node in graph.node if node.op == "Placeholder"}
        return cls(
            images,
            graph,
            traced.inputs[0].op.name,
            logits.op.name,
            logits.shape,
            variables={name: captures[name] for name in inputs & captures.keys()},
            traced=traced if graph.library.function else None,
        )

    def take_kernels(self) -> dict[str, tf.Tensor]:
        """Makes the kernels inputs of the graph, and returns them by the names of their nodes.

        A graph is copied several times before it runs, with its constants.
        """
        taken = {}
        for node in self.graph.node:
            if node.op == "Const" and len(node.attr["value"].tensor.tensor_shape.dim) == 4:
                taken[node.name] = tf.constant(tf.make_ndarray(node.attr["value"].tensor))
                node.op = "Placeholder"
                del node.attr["value"]
        return taken

    def function(self, kernels: dict[str, tf.Tensor]) -> _Function:
        """Returns the graph as a function of images, where `take_kernels` took these kernels."""

        # TensorFlow optimises the function once, and not each of its calls in a larger graph.
        @tf.function(
            input_signature=[self.images],
            autograph=False,
            experimental_attributes={"_noinline": True} if kernels else None,
        )
        def folded(images):
            inputs = kernels | self.variables
            inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
            (logits,) = tf.graph_util.import_graph_def(
                self.graph, inputs | {self.source: images}, [f"{self.result}:0"], name="network"
            )
            return tf.ensure_shape(logits, self.shape)

        return folded


def _with_captured_constants(
    graph: tf.compat.v1.GraphDef, captures: dict[str, tf.Tensor]
) -> tf.compat.v1.GraphDef:
    """Returns a graph with the tensors that it captured, which a layer may keep, as constants.

    Args:
        graph: The graph, which is changed.
        captures: Name of an input of the graph -> what was captured: a tensor, or the handle of a
            variable, which stays an input.
    """
    for node in graph.node:
        if node.name in captures and captures[node.name].dtype != tf.resource:
            node.op = "Const"
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(captures[node.name]))
            del node.attr["shape"]
    return graph
