"""The plain forms of fast layers: what a textbook would write, with the same weights and results.

They stand here and not in `kseg.layers`, since nothing but a comparison needs them; the tests take
them as the truth.
"""

import functools

from keras import ops

from kseg.layers import KSAC, LKSPP, VortexPooling


def plain_shared_atrous_conv(features, kernel, dilation_rates):
    """What `shared_atrous_conv` computes, as one convolution of Keras for each rate."""
    return [
        ops.conv(features, kernel, padding="same", dilation_rate=rate) for rate in dilation_rates
    ]


def native_shared_atrous_conv(features, kernel, dilation_rates):
    """The same by the dilated convolution of TensorFlow's CPU library.

    Keras does not reach it: it asks for `tf.nn.convolution`, which cuts the map into as many
    small ones as the rate squared. The fast form has to beat this one. On a CPU its gradient is
    oneDNN's, which TensorFlow turns off where there is no AVX-512: Keras' way stands in for it.
    """
    if not _native_gradient_exists():
        return plain_shared_atrous_conv(features, kernel, dilation_rates)
    # Not at the top: the plain forms serve the tests on every backend.
    import tensorflow as tf

    return [tf.nn.conv2d(features, kernel, 1, "SAME", dilations=rate) for rate in dilation_rates]


@functools.cache
def _native_gradient_exists():
    import tensorflow as tf

    try:
        with tf.init_scope():  # also where a graph is being made
            tf.raw_ops.Conv2DBackpropFilter(
                input=tf.ones((1, 5, 5, 1)), filter_sizes=(3, 3, 1, 1),
                out_backprop=tf.ones((1, 5, 5, 1)), strides=(1, 1, 1, 1), padding="SAME",
                dilations=(1, 2, 2, 1),
            )  # fmt: skip
    except tf.errors.OpError:
        return False
    return True


def plain_average_pool(features, pool_size):
    """What `average_pool` computes, by TensorFlow's pooling, which reads k x k values a pixel."""
    import tensorflow as tf

    return tf.nn.avg_pool2d(features, pool_size, 1, "SAME")


class PlainKSAC(KSAC):
    """`KSAC` with one convolution for each rate.

    Args:
        filters: As in `KSAC`.
        convolve: Function of (features, kernel, dilation_rates), one of the two above.
        **options: As in `KSAC`.
    """

    def __init__(self, filters=256, *, convolve=plain_shared_atrous_conv, **options):
        super().__init__(filters, **options)
        self._convolve = convolve

    def _convolutions(self, features):
        kernel = ops.convert_to_tensor(self.kernel)
        return self._convolve(features, kernel, self.dilation_rates)


class PlainVortexPooling(VortexPooling):
    """Module B of `VortexPooling` with TensorFlow's poolings and dilated convolutions."""

    def branches(self, features, training):
        maps = []
        for rate, brick in zip(self.dilation_rates, self.atrous, strict=True):
            pooled = plain_average_pool(features, rate) if rate > 1 else features
            kernel = ops.convert_to_tensor(brick.convolution.kernel)
            (rate_map,) = native_shared_atrous_conv(pooled, kernel, (rate,))
            maps.append(ops.relu(brick.norm(rate_map, training=training)))
        return maps


class PlainLKSPP(LKSPP):
    """`LKSPP` with Keras' separable convolutions, as `keras.layers.SeparableConv2D` calls them."""

    def branches(self, features, training):
        return [self.branch(index, features, training) for index in range(len(self.large_kernels))]

    def branch(self, index, features, training):
        """One kernel size: two mirrored chains of two separable convolutions, summed."""
        kernels = self.large_kernels[index]
        return ops.relu(
            sum(
                self._chain(lines, features, training)
                for lines in (kernels.column_first, kernels.row_first)
            )
        )

    def _chain(self, lines, features, training):
        for line in lines:
            features = ops.separable_conv(
                features,
                ops.convert_to_tensor(line.depthwise.kernel),
                ops.convert_to_tensor(line.pointwise.convolution.kernel),
                padding="same",
            )
            features = line.pointwise.norm(features, training=training)
        return features
