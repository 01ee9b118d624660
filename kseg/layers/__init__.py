"""The layers: one public Keras layer a file, on `keras.ops` alone, channels last."""

from kseg.layers.aspp import ASPP
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.conv_norm_act import ConvNormAct
from kseg.layers.image_normalization import ImageNormalization
from kseg.layers.ksac import KSAC
from kseg.layers.resize import Resize

__all__ = ["ASPP", "BatchNorm", "ConvNormAct", "ImageNormalization", "KSAC", "Resize"]
