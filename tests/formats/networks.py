"""Networks whose normalisations look as after training, and files to ask them about."""

import io

import keras
import numpy as np
from PIL import Image

from kseg.layers import BatchNorm, ConvNormAct, ImageNormalization
from kseg.models import deeplab_v3_plus


def lived(model, seed=0):
    """Gives every batch normalisation statistics and weights that are not those of a start."""
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
    """DeepLabv3 on MobileNetV2 whose random logits are spread, so that every class is named."""
    keras.utils.set_random_seed(7)
    options = {"filters": 8, "dilation_rates": (1, 2), "decoder": False} | options
    network = deeplab_v3_plus(num_classes, **options)
    if "backbone_weights" not in options:
        lived(network)
    classifier = network.get_layer("logits")
    kernel = np.random.default_rng(0).normal(0, 1, classifier.kernel.shape)
    classifier.set_weights([kernel, np.zeros(num_classes)])
    logits = np.asarray(network(picture(65, 97, seed=0)[np.newaxis].astype("float32")))
    spread = logits.std((0, 1, 2))
    classifier.set_weights([kernel / spread, -logits.mean((0, 1, 2)) / spread])
    return network


def tiny_network():
    """Two convolutions and a classifier: for what does not depend on the network."""
    keras.utils.set_random_seed(7)
    images = keras.Input((None, None, 3))
    x = ImageNormalization("tf")(images)
    for _ in range(2):
        x = ConvNormAct(64, kernel_size=3)(x)
    return lived(keras.Model(images, keras.layers.Conv2D(3, 1)(x)))


def picture(height, width, seed):
    """Smooth colours, so that JPEG keeps them and all classes have room."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def decoded(contents):
    """RGB, as Pillow reads it."""
    return np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))


def classes(model, images):
    """Class ids by the network itself."""
    return np.argmax(np.asarray(model(images.astype("float32"))), axis=-1)


def photographs(real_data, count):
    """The first photographs of VOC's validation list, as bytes of their files."""
    voc = real_data / "VOCdevkit" / "VOC2012"
    names = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[:count]
    return [(voc / "JPEGImages" / f"{name}.jpg").read_bytes() for name in names]
