"""A network whose answer is known."""

import keras
import numpy as np

from kseg.layers import ImageNormalization


def bright_network(contrast):
    """Answers class 1 where the red channel is above 127.5, the surer the larger `contrast`."""
    images = keras.Input((None, None, 3))
    logits = keras.layers.Conv2D(2, 1)
    network = keras.Model(images, logits(ImageNormalization("tf")(images)))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 1] = contrast
    logits.set_weights([kernel, np.zeros(2, np.float32)])
    return network
