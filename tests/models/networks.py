"""A small network as a backbone, for tests that need no large one."""

import contextlib
import functools

import keras
import pytest
from keras import layers

from kseg.backbones import BACKBONES, PyramidBackbone


def tiny_backbone(*strides):
    """Returns a network of strided convolutions with feature maps of these strides.

    Its weights and names are always the same, so that several processes train the same network.
    """
    maps = {}
    x = images = keras.Input((None, None, 3))
    stride = 1
    while stride < max(strides):
        stride *= 2
        x = layers.Conv2D(
            8 + 2 * stride, 3, strides=2, padding="same", use_bias=False,
            kernel_initializer=keras.initializers.GlorotUniform(seed=stride),
            name=f"tiny_{stride}_conv",
        )(x)  # fmt: skip
        x = layers.BatchNormalization(name=f"tiny_{stride}_norm")(x)
        x = maps[stride] = layers.ReLU(name=f"tiny_{stride}")(x)
    return keras.Model(images, {f"stride_{stride}": maps[stride] for stride in strides})


class TinyBackbone:
    """Such a network as a backbone, built when it is used: processes of JAX have to join before."""

    def __init__(self, *strides):
        self._strides = strides

    @functools.cached_property
    def _backbone(self):
        return PyramidBackbone(tiny_backbone(*self._strides))

    def __getattr__(self, name):
        return getattr(self._backbone, name)

    def __call__(self, **options):
        return self._backbone(**options)


@contextlib.contextmanager
def registered_backbone(*strides):
    """Makes such a network known to experiments as the backbone "tiny"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", TinyBackbone(*strides))
        yield
