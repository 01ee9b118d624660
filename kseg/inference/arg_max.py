"""A fast arg-max over classes for evaluation on CPUs."""

import tensorflow as tf

# Number of pixels that the compiled arg-max handles at once. An image consists of runs of this
# length and a remainder.
RUN = 1 << 15


def class_ids(scores: tf.Tensor) -> tf.Tensor:
    """Returns the index of the greatest score at each pixel, the lower one where two are equal.

    For a million pixels and 21 classes on two cores, TensorFlow's arg-max takes 25 ms and Keras',
    which distinguishes -0.0 from 0.0, takes 53 ms; this one takes 9 ms. XLA compiles for each shape
    again, so the pixels are passed to it in runs of one length.

    Args:
        scores: Float `[batch, height, width, num_classes]`; all sizes but the last may be unknown.

    Returns:
        int32 `[batch, height, width]`.
    """
    if tf.config.get_visible_devices("GPU"):  # TensorFlow's arg-max is fast there.
        return _arg_max(scores)
    classes = scores.shape[-1]
    pixels = tf.reshape(scores, (-1, classes))
    runs = tf.shape(pixels)[0] // RUN

    def one_run(number):
        part = pixels[number * RUN : (number + 1) * RUN]
        return _compiled(tf.ensure_shape(part, (RUN, classes)))

    ids = tf.map_fn(one_run, tf.range(runs), fn_output_signature=tf.TensorSpec((RUN,), tf.int32))
    rest = _arg_max(pixels[runs * RUN :])
    return tf.reshape(tf.concat((tf.reshape(ids, (-1,)), rest), 0), tf.shape(scores)[:-1])


def _arg_max(scores):
    return tf.argmax(scores, axis=-1, output_type=tf.int32)


_compiled = tf.function(_arg_max, jit_compile=True)
