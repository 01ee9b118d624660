"""Keras layers: one public layer in each file, written in `keras.ops`, channels last."""

from kseg.layers.aspp import ASPP
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.boundary_refinement import BoundaryRefinement
from kseg.layers.conv2d_transpose import Conv2DTranspose
from kseg.layers.conv_norm_act import ConvNormAct
from kseg.layers.conv_stack import ConvStack
from kseg.layers.crop import Crop
from kseg.layers.depthwise_conv2d import DepthwiseConv2D
from kseg.layers.dropout import Dropout
from kseg.layers.gcn import GCN
from kseg.layers.gcn_context import GCNContext
from kseg.layers.image_normalization import ImageNormalization
from kseg.layers.ksac import KSAC
from kseg.layers.large_kernel_conv import LargeKernelConv
from kseg.layers.lkspp import LKSPP
from kseg.layers.no_context import NoContext
from kseg.layers.pad_to_stride import PadToStride
from kseg.layers.pyramid_pooling import PyramidPooling
from kseg.layers.rescale import Rescale
from kseg.layers.resize import Resize
from kseg.layers.separable_conv_norm_act import SeparableConvNormAct
from kseg.layers.vortex_pooling import VortexPooling

__all__ = [
    "ASPP",
    "GCN",
    "KSAC",
    "LKSPP",
    "BatchNorm",
    "BoundaryRefinement",
    "Conv2DTranspose",
    "ConvNormAct",
    "ConvStack",
    "Crop",
    "DepthwiseConv2D",
    "Dropout",
    "GCNContext",
    "ImageNormalization",
    "LargeKernelConv",
    "NoContext",
    "PadToStride",
    "PyramidPooling",
    "Rescale",
    "Resize",
    "SeparableConvNormAct",
    "VortexPooling",
]
