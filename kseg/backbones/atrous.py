"""Rebuilding of a network of `keras.applications` at a smaller output stride, with its weights."""

from collections.abc import Mapping

import keras
from keras import layers

from kseg.layers import BatchNorm, DepthwiseConv2D, arguments

OUTPUT_STRIDES = (8, 16, 32)

# Layers with a window over height and width.
_WINDOWED = (layers.Conv2D, layers.DepthwiseConv2D, layers.MaxPooling2D)

# A layer of Keras -> the same layer with faster kernels.
_FASTER = {layers.BatchNormalization: BatchNorm, layers.DepthwiseConv2D: DepthwiseConv2D}

# Layers that `at_output_stride` rebuilds correctly: those above, and layers known to process each
# pixel separately. A composite layer may contain a stride or a window.
_REBUILT = (
    *_WINDOWED,
    layers.InputLayer,
    layers.ZeroPadding2D,
    layers.BatchNormalization,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Add,
    layers.Concatenate,
    layers.Dropout,
    layers.Rescaling,
    *_FASTER.values(),
)


def at_output_stride(
    application: keras.Model, output_stride: int, multi_grid: Mapping[str, int] | None = None
) -> keras.Model:
    """Returns a copy of a convolutional network that stops subsampling at `output_stride`.

    A layer whose input has stride `s` in the original network, and now `t = min(s,
    output_stride)`, gets the dilation rate `s / t`; it keeps its own stride only where the result
    does not exceed `output_stride`. A convolution that loses its stride therefore runs at the
    previous rate, and all layers after it at the previous rate times that stride. The dense output,
    subsampled, then equals the original output (the atrous identity). In the ResNets of
    `keras.applications` the first 1x1 convolution of a block has the stride, so the 3x3
    convolution of that block already gets the new rate.

    Every subsampling window is centred: it is padded by (kernel - 1) // 2 on all four sides,
    whatever the size of the input. Keras pads by (0, 1) at even sizes, which shifts the sampling
    grid by a pixel depending on the parity of the image. At odd sizes both are the same.

    Args:
        application: Functional `keras.Model` of one input, channels last, made of convolutions,
            max pooling of values >= 0 (the padding is zeros), zero padding and pointwise layers.
            It is not changed.
        output_stride: Integer: 8, 16 or 32. The largest stride of the copy.
        multi_grid: Dict from the name of a layer to an integer >= 1 that multiplies its dilation
            rate. With a factor above 1 the copy computes another function, so the identity does
            not hold. Defaults to `None`, no factors.

    Returns:
        `keras.Model` with the same layer names (except for zero padding) and the same weights.

    Raises:
        ValueError: If `output_stride` is not one of those above, if a layer cannot be dilated, or
            if `multi_grid` names a layer that the network does not have.
    """
    arguments.one_of("output_stride", output_stride, OUTPUT_STRIDES)
    input_strides = _input_strides(application)
    multi_grid = multi_grid or {}
    for name in multi_grid:
        if name not in input_strides:
            raise ValueError(f"`multi_grid` must name layers of the network. Received: {name!r}")

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, _WINDOWED):
            factor = multi_grid.get(layer.name, 1)
            config.update(_window(layer, input_strides[layer.name], output_stride, factor))
        return _FASTER.get(type(layer), type(layer)).from_config(config)

    def call(layer, *args, **kwargs):
        if isinstance(layer, layers.ZeroPadding2D):
            return args[0]
        if isinstance(layer, _WINDOWED) and layer.padding == "valid":
            margin = [(size - 1) // 2 for size in _window_size(layer)]
            if any(margin):
                padding = layers.ZeroPadding2D(
                    margin, data_format="channels_last", name=f"{layer.name}_padding"
                )
                return layer(padding(args[0]), **kwargs)
        return layer(*args, **kwargs)

    images = keras.Input(application.input.shape[1:], name="normalized_images")
    network = keras.models.clone_model(
        application, input_tensors=images, clone_function=clone, call_function=call
    )
    copy_weights(application, network)
    return network


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of each layer of a network to the layer of the same name in another."""
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())


def check_dilatable(network: keras.Model) -> None:
    """Raises unless `at_output_stride` can rebuild every layer of an arbitrary network.

    Raises:
        ValueError: If a layer is not of a known kind, is padded otherwise, is dilated already, or
            is a max pooling of values that may be negative; the message names the layer.
    """
    unknown = {type(layer).__name__ for layer in network.layers if type(layer) not in _REBUILT}
    if unknown:
        raise ValueError(f"it contains layers that cannot be dilated: {', '.join(sorted(unknown))}")
    makers = {id(layer.output): layer for layer in network.layers}
    for layer in network.layers:
        inputs = [] if isinstance(layer, layers.InputLayer) else keras.tree.flatten(layer.input)
        sources = [makers.get(id(tensor)) for tensor in inputs]
        if not _is_centred(layer, sources):
            raise ValueError(
                f"its layer {layer.name!r} is not padded by (kernel - 1) / 2 on all sides, as its "
                "copy would be"
            )
        if set(getattr(layer, "dilation_rate", (1,))) != {1}:
            raise ValueError(f"its layer {layer.name!r} is already dilated")
        if isinstance(layer, layers.MaxPooling2D):
            # The copy pads with zeros, which are larger than negative values.
            (source,) = sources
            if not isinstance(source, layers.ZeroPadding2D) and not _is_relu(source):
                raise ValueError(f"its pooling layer {layer.name!r} does not follow a ReLU")


def _is_relu(layer):
    """Returns whether a layer ends with a ReLU, whose values are >= 0."""
    if isinstance(layer, layers.ReLU):
        return layer.negative_slope == 0  # Keras allows no threshold below 0.
    return getattr(layer, "activation", None) is keras.activations.relu


def _is_centred(layer, sources):
    """Returns whether a layer's windows are padded as `at_output_stride` pads them.

    Args:
        layer: Layer of the network.
        sources: List of the layers that its inputs come from.
    """
    paddings = [source.padding for source in sources if isinstance(source, layers.ZeroPadding2D)]
    if not isinstance(layer, _WINDOWED) or layer.padding == "same":
        return not paddings
    (padding,) = paddings or [((0, 0), (0, 0))]
    for (start, end), size, stride in zip(padding, _window_size(layer), layer.strides, strict=True):
        margin = (size - 1) // 2
        if stride == 1:
            fits = start == end == margin and start + end == size - 1
        else:  # At even sizes Keras pads by one pixel less at the start.
            fits = end == margin and start in (margin, margin - 1)
        if not fits:
            return False
    return True


def _input_strides(application):
    """Maps the name of each layer to the stride of its input in the original network."""
    strides = {id(application.input): 1}
    input_strides = {}
    for layer in application.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        sources = layer.input if isinstance(layer.input, list) else [layer.input]
        unknown = [source.name for source in sources if id(source) not in strides]
        if unknown:
            raise ValueError(
                f"The input of layer {layer.name!r} is the output of an operation that is not a "
                f"layer ({', '.join(unknown)}), so its stride is not known"
            )
        found = {strides[id(source)] for source in sources}
        if len(found) != 1:
            raise ValueError(f"Layer {layer.name!r} joins feature maps of strides {sorted(found)}")
        stride = found.pop()
        input_strides[layer.name] = stride
        strides[id(layer.output)] = stride * _layer_stride(layer)
    return input_strides


def _layer_stride(layer):
    """Returns by how much a layer subsamples height and width alike."""
    stride = getattr(layer, "strides", 1)
    stride = set(stride) if isinstance(stride, (tuple, list)) else {stride}
    if len(stride) != 1 or (stride != {1} and not isinstance(layer, _WINDOWED)):
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) with strides {layer.strides} cannot be "
            "rebuilt at another output stride"
        )
    return stride.pop()


def _window_size(layer):
    """Returns height and width of the window of a layer of `_WINDOWED`."""
    return layer.pool_size if isinstance(layer, layers.MaxPooling2D) else layer.kernel_size


def _window(layer, stride, output_stride, factor):
    """Returns the changed entries of a layer's config, given the original stride of its input."""
    input_stride = min(stride, output_stride)
    new_stride = min(stride * _layer_stride(layer), output_stride) // input_stride
    rate = stride // input_stride * factor
    if set(_window_size(layer)) == {1}:
        rate = 1  # TensorFlow would split the map into rate x rate small ones and join them again.
    if isinstance(layer, layers.MaxPooling2D):
        if rate != 1 or new_stride != _layer_stride(layer):
            raise ValueError(f"Pooling layer {layer.name!r} cannot be dilated")
        return {"padding": "valid"}
    # DepthwiseConv2D accepts a stride together with a dilation but computes something else.
    if new_stride > 1 and rate > 1:
        raise ValueError(
            f"Layer {layer.name!r} would get both stride {new_stride} and dilation rate {rate}"
        )
    return {
        "strides": (new_stride, new_stride),
        "dilation_rate": (rate, rate),
        "padding": "same" if new_stride == 1 else "valid",
    }
