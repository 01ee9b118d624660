"""A small network as a backbone, for tests that need no large one."""

import contextlib

import keras
import pytest
from keras import layers

from kseg.backbones import BACKBONES, PyramidBackbone


def tiny_backbone(*strides):
    """Returns a network of strided convolutions with feature maps of these strides.

    Its weights are always the same, so that several processes train from the same ones.
    """
    maps = {}
    x = images = keras.Input((None, None, 3))
    stride = 1
    while stride < max(strides):
        stride *= 2
        x = layers.Conv2D(
            8 + 2 * stride, 3, strides=2, padding="same", use_bias=False,
            kernel_initializer=keras.initializers.GlorotUniform(seed=stride),
        )(x)  # fmt: skip
        x = maps[stride] = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(images, {f"stride_{stride}": maps[stride] for stride in strides})


@contextlib.contextmanager
def registered_backbone(*strides):
    """Makes such a network known to experiments as the backbone "tiny"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", PyramidBackbone(tiny_backbone(*strides)))
        yield
