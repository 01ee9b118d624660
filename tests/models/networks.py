"""A small network as a backbone, for tests that need no large one."""

import keras
from keras import layers


def tiny_backbone(*strides):
    """Returns a network of strided convolutions with feature maps of these strides."""
    maps = {}
    x = images = keras.Input((None, None, 3))
    stride = 1
    while stride < max(strides):
        stride *= 2
        x = layers.Conv2D(8 + 2 * stride, 3, strides=2, padding="same", use_bias=False)(x)
        x = maps[stride] = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(images, {f"stride_{stride}": maps[stride] for stride in strides})
