"""Sliding windows over images of any size, in one graph."""

from collections.abc import Callable

import tensorflow as tf


def slide(
    scores_of: Callable[[tf.Tensor], tf.Tensor],
    images: tf.Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    channels: int,
) -> tf.Tensor:
    """Computes the scores of images window by window and averages them where windows overlap.

    Windows begin at every multiple of the stride. The last window of a row or column is moved back
    so that it ends at the border, and nothing is padded. A window is cut to a smaller image.

    Args:
        scores_of: Function from images `[batch, rows, columns, 3]` to scores of the same size.
        images: `[batch, height, width, 3]`; height and width may be unknown.
        window: Height and width of a window.
        stride: Rows and columns between two windows, at most `window`.
        channels: Number of channels of the scores.

    Returns:
        float32 scores `[batch, height, width, channels]`.

    Reference:
        GCN evaluates Cityscapes on 1024x1024 crops that are fused, without giving their positions.
        A stride of 342 gives four crops of a 1024x2048 frame.
    """
    shape = tf.shape(images)
    size = shape[1:3]
    window = tf.minimum(tf.constant(window), size)
    more = -(-(size - window) // tf.constant(stride))  # Windows after the first, along each side.
    total = tf.zeros((shape[0], size[0], size[1], channels))
    counts = tf.zeros((1, size[0], size[1], 1))

    def add(index, total, counts):
        place = tf.stack([index // (more[1] + 1), index % (more[1] + 1)])
        first = tf.minimum(place * tf.constant(stride), size - window)
        last = first + window
        scores = scores_of(images[:, first[0] : last[0], first[1] : last[1]])
        around = [[0, 0], *([first[axis], size[axis] - last[axis]] for axis in (0, 1)), [0, 0]]
        total += tf.ensure_shape(tf.pad(scores, around), total.shape)
        counts += tf.pad(tf.ones((1, window[0], window[1], 1)), around)
        return index + 1, total, counts

    windows = tf.reduce_prod(more + 1)
    _, total, counts = tf.while_loop(
        lambda index, *_: index < windows,
        add,
        (0, total, counts),
        shape_invariants=(
            tf.TensorShape(()),
            tf.TensorShape((None, None, None, channels)),
            tf.TensorShape((1, None, None, 1)),
        ),
        parallel_iterations=1,  # In parallel, several windows would be held in memory.
    )
    return total / counts
