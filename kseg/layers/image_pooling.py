"""The image-level branch of a context module."""

from keras import ops


def pool_image(features):
    """The mean of a map over height and width, as a map of one pixel.

    In float32 whatever the dtype: a map of 65x65 has more pixels than bfloat16 can count.

    Args:
        features: Float tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, 1, 1, channels)` of the same dtype.
    """
    mean = ops.mean(ops.cast(features, "float32"), axis=(1, 2), keepdims=True)
    return ops.cast(mean, features.dtype)


def spread(pooled, features):
    """Repeats a map of one pixel over the height and width of `features`.

    A bilinear resize of one pixel is that pixel everywhere, so no resize is needed.

    Args:
        pooled: Tensor `(batch, 1, 1, channels)`.
        features: Tensor `(batch, height, width, any)`.

    Returns:
        Tensor `(batch, height, width, channels)`.
    """
    batch, height, width = ops.shape(features)[:3]
    return ops.broadcast_to(pooled, (batch, height, width, pooled.shape[-1]))
