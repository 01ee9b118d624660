"""Sliding windows over images of any size, in one graph."""

import tensorflow as tf


def slide(
    scores_of,
    images: tf.Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    channels: int,
) -> tf.Tensor:
    """Scores of images by windows; what several windows see gets the mean of their scores.

    Windows begin at every multiple of the stride; the last of a row or column is moved back to
    end at the edge, so that nothing is padded. Along a side shorter than the window there is one,
    as long as the side.

    Args:
        scores_of: Function of images `[batch, rows, columns, 3]` to scores of their size.
        images: `[batch, height, width, 3]`; height and width may be unknown.
        window: Height and width of a window.
        stride: Rows and columns from one window to the next, at most `window`.
        channels: Number of channels of the scores.

    Returns:
        float32 scores `[batch, height, width, channels]`.

    Reference:
        GCN evaluates Cityscapes by 1024x1024 crops that are fused; it does not say how they lie.
        Four on a 1024x2048 frame come from a stride of 342.
    """
    shape = tf.shape(images)
    size = shape[1:3]
    window = tf.minimum(tf.constant(window), size)
    more = -(-(size - window) // tf.constant(stride))  # windows after the first
    total = tf.zeros((shape[0], size[0], size[1], channels))
    seen = tf.zeros((1, size[0], size[1], 1))

    def add(index, total, seen):
        place = tf.stack([index // (more[1] + 1), index % (more[1] + 1)])
        first = tf.minimum(place * tf.constant(stride), size - window)
        last = first + window
        scores = scores_of(images[:, first[0] : last[0], first[1] : last[1]])
        around = [[0, 0], *([first[axis], size[axis] - last[axis]] for axis in (0, 1)), [0, 0]]
        total += tf.ensure_shape(tf.pad(scores, around), total.shape)
        seen += tf.pad(tf.ones((1, window[0], window[1], 1)), around)
        return index + 1, total, seen

    windows = tf.reduce_prod(more + 1)
    _, total, seen = tf.while_loop(
        lambda index, *_: index < windows,
        add,
        (0, total, seen),
        shape_invariants=(
            tf.TensorShape(()),
            tf.TensorShape((None, None, None, channels)),
            tf.TensorShape((1, None, None, 1)),
        ),
        parallel_iterations=1,  # several at once would hold several maps
    )
    return total / seen
