"""Small networks with batch normalisations as after training, and images to run them on."""

import io

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from kseg.layers import BatchNorm, ConvNormAct, Crop, ImageNormalization, PadToStride, Resize
from kseg.layers.rescale import Rescale
from kseg.models import Segmenter, deeplab_v3_plus


def randomize_batch_norms(model, seed=0):
    """Gives every batch normalisation weights and statistics that differ from the initial ones."""
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, BatchNorm):
            channels = layer.gamma.shape[0]
            layer.gamma.assign(random.uniform(0.5, 1.5, channels))
            layer.beta.assign(random.normal(0, 0.3, channels))
            layer.moving_mean.assign(layer.moving_mean + random.normal(0, 0.3, channels))
            layer.moving_variance.assign(layer.moving_variance * random.uniform(0.5, 2, channels))
    return model


def small_network(num_classes=3, **options):
    """DeepLabv3 on MobileNetV2 whose random logits are spread, so that every class occurs."""
    keras.utils.set_random_seed(7)
    options = {"filters": 8, "dilation_rates": (1, 2), "decoder": False} | options
    network = deeplab_v3_plus(num_classes, **options)
    if "backbone_weights" not in options:
        randomize_batch_norms(network)
    classifier = network.get_layer("logits")
    kernel = np.random.default_rng(0).normal(0, 1, classifier.kernel.shape)
    classifier.set_weights([kernel, np.zeros(num_classes)])
    logits = np.asarray(network(smooth_image(65, 97, seed=0)[np.newaxis].astype("float32")))
    spread = logits.std((0, 1, 2))
    classifier.set_weights([kernel / spread, -logits.mean((0, 1, 2)) / spread])
    return network


def tiny_network():
    """Two convolutions and a classifier, for tests that do not depend on the network."""
    keras.utils.set_random_seed(7)
    images = keras.Input((None, None, 3))
    x = ImageNormalization("tf")(images)
    for _ in range(2):
        x = ConvNormAct(64, kernel_size=3)(x)
    return randomize_batch_norms(Segmenter(images, keras.layers.Conv2D(3, 1)(x)))


class Keeping(keras.layers.Layer):
    """Multiplies by numbers that a function has made in `build`, and that are no weights."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def build(self, input_shape):
        # TensorFlow copies tensors of at most 128 elements into a graph.
        values = np.random.default_rng(0).normal(size=(3, 3, input_shape[-1]))
        self.kept = self.kind(values.astype("float32"))

    def call(self, features):
        return features * tf.reduce_sum(self.kept, axis=(0, 1))


def keeping_network(kind):
    """A network with a layer that keeps `kind(array)`, a tensor or a variable of TensorFlow."""
    keras.utils.set_random_seed(7)
    images = keras.Input((None, None, 3))
    x = ConvNormAct(64, kernel_size=3)(ImageNormalization("tf")(images))
    return randomize_batch_norms(Segmenter(images, keras.layers.Conv2D(3, 1)(Keeping(kind)(x))))


def negated(network):
    """A copy of a network that ends in a convolution, with logits of the opposite sign."""
    copy = keras.models.clone_model(network)
    *weights, kernel, bias = network.get_weights()
    copy.set_weights([*weights, -kernel, -bias])
    return copy


def resizing_network(align_corners):
    """A small network of stride 8 that resizes up, down and to the size of the image."""
    keras.utils.set_random_seed(7)
    images = keras.Input((None, None, 3))
    padded = PadToStride(8, align_corners=align_corners)(ImageNormalization("tf")(images))
    x = padded
    for filters in (8, 8, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    smaller = Rescale(0.75, align_corners=align_corners)(x)
    x = keras.layers.Concatenate()([x, Resize(align_corners=align_corners)([smaller, x])])
    logits = keras.layers.Conv2D(4, 1, kernel_initializer="glorot_normal")(x)
    logits = Resize(align_corners=align_corners)([logits, padded])
    return Segmenter(images, Crop()([logits, images]), align_corners=align_corners)


def smooth_image(height, width, seed):
    """Smooth colours, which JPEG preserves and which give every class some area."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def decode_with_pillow(contents):
    """RGB pixels of an image file, as Pillow decodes it."""
    return np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))


def predicted_classes(model, images):
    """Class ids computed by the network itself."""
    return np.argmax(np.asarray(model(images.astype("float32"))), axis=-1)


def photographs(real_data, count):
    """The files of the first photographs in VOC's validation list, as bytes."""
    voc = real_data / "VOCdevkit" / "VOC2012"
    names = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[:count]
    return [(voc / "JPEGImages" / f"{name}.jpg").read_bytes() for name in names]
