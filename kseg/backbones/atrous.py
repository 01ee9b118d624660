"""Rebuilds a network of `keras.applications` at a smaller output stride, weights kept."""

import keras
from keras import layers

from kseg.layers import BatchNorm

OUTPUT_STRIDES = (8, 16, 32)

# Layers of a window over height and width.
WINDOWED = (layers.Conv2D, layers.DepthwiseConv2D, layers.MaxPooling2D)


def check_output_stride(output_stride):
    """Raises ValueError unless `output_stride` is one of the integers of `OUTPUT_STRIDES`."""
    if not isinstance(output_stride, int) or output_stride not in OUTPUT_STRIDES:
        raise ValueError(
            f"`output_stride` must be one of {OUTPUT_STRIDES}. Received: {output_stride!r}"
        )


def at_output_stride(application, output_stride, multi_grid=None):
    """Returns a copy of a convolutional network that stops subsampling at `output_stride`.

    A layer whose input lies at stride `s` of the original network, now held at
    `t = min(s, output_stride)`, runs with dilation `s / t`; its own stride stays only while the
    result is not beyond `output_stride`. So the convolution that loses its stride runs at the old
    rate and all that follow at old rate * stride, and the dense output, subsampled, equals the
    original output (the atrous identity). In the ResNets of `keras.applications` the stride sits
    in the first 1x1 convolution of a block, hence the 3x3 of that block already gets the new rate.

    Every subsampling window is centred: it is padded by (kernel - 1) // 2 on all four sides,
    whatever the size of the input. Keras pads by (0, 1) at even sizes, which shifts the sampling
    grid by a pixel with the parity of the image. At odd sizes both are the same.

    Args:
        application: functional `keras.Model` of one input, channels last, made of convolutions,
            max pooling of values >= 0 (its padding is zeros), zero padding and pointwise layers.
            It is left as it is.
        output_stride: int, 8, 16 or 32. The coarsest stride of the copy.
        multi_grid: dict, name of a layer -> int >= 1 by which its dilation is multiplied. Default
            None, no layer. With a factor above 1 the copy is another function: the identity holds
            without only.

    Returns:
        `keras.Model` with the same layer names (zero paddings aside) and the same weights.

    Raises:
        ValueError: for another `output_stride`; for a layer that cannot be dilated; for a layer of
            `multi_grid` that the network does not have.
    """
    check_output_stride(output_stride)
    input_strides = _input_strides(application)
    multi_grid = multi_grid or {}
    for name in multi_grid:
        if name not in input_strides:
            raise ValueError(f"`multi_grid` must name layers of the network. Received: {name!r}")

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, WINDOWED):
            factor = multi_grid.get(layer.name, 1)
            config.update(_window(layer, input_strides[layer.name], output_stride, factor))
        # The same layer with a faster kernel, see its docstring.
        is_norm = type(layer) is layers.BatchNormalization
        return (BatchNorm if is_norm else type(layer)).from_config(config)

    def call(layer, *args, **kwargs):
        if isinstance(layer, layers.ZeroPadding2D):
            return args[0]
        if isinstance(layer, WINDOWED) and layer.padding == "valid":
            margin = [(size - 1) // 2 for size in window_size(layer)]
            if any(margin):
                padding = layers.ZeroPadding2D(margin, name=f"{layer.name}_padding")
                return layer(padding(args[0]), **kwargs)
        return layer(*args, **kwargs)

    images = keras.Input(application.input.shape[1:], name="normalized_images")
    network = keras.models.clone_model(
        application, input_tensors=images, clone_function=clone, call_function=call
    )
    for layer in network.layers:
        if layer.weights:
            layer.set_weights(application.get_layer(layer.name).get_weights())
    return network


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
                f"Layer {layer.name!r} takes the output of an operation that is no layer "
                f"({', '.join(unknown)}), so its stride is not known"
            )
        found = {strides[id(source)] for source in sources}
        if len(found) != 1:
            raise ValueError(f"Layer {layer.name!r} joins feature maps of strides {sorted(found)}")
        stride = found.pop()
        input_strides[layer.name] = stride
        strides[id(layer.output)] = stride * _own_stride(layer)
    return input_strides


def _own_stride(layer):
    """How far a layer subsamples; the layers known here subsample height and width alike."""
    stride = getattr(layer, "strides", 1)
    stride = set(stride) if isinstance(stride, (tuple, list)) else {stride}
    if len(stride) != 1 or (stride != {1} and not isinstance(layer, WINDOWED)):
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) of strides {layer.strides} cannot be "
            "rebuilt at another output stride"
        )
    return stride.pop()


def window_size(layer):
    """Height and width of the window of a layer of `WINDOWED`."""
    return layer.pool_size if isinstance(layer, layers.MaxPooling2D) else layer.kernel_size


def _window(layer, stride, output_stride, factor):
    """The changed part of a windowed layer's config, its input at `stride` of the original."""
    held = min(stride, output_stride)
    own = min(stride * _own_stride(layer), output_stride) // held
    rate = stride // held * factor
    if isinstance(layer, layers.MaxPooling2D):
        if rate != 1 or own != _own_stride(layer):
            raise ValueError(f"Pooling layer {layer.name!r} cannot be dilated")
        return {"padding": "valid"}
    # DepthwiseConv2D would take a stride and a dilation together and compute something else.
    if own > 1 and rate > 1:
        raise ValueError(f"Layer {layer.name!r} would get both stride {own} and dilation {rate}")
    return {
        "strides": (own, own),
        "dilation_rate": (rate, rate),
        "padding": "same" if own == 1 else "valid",
    }
