"""kseg: context modules for semantic segmentation as Keras layers, and the programs around them."""

import os

__version__ = "0.1.0"

# TensorFlow's C++ log drowns the messages of the programs; set the variable yourself to see it.
# It must be set before TensorFlow is imported, and this file is the first that any program loads.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow leaves oneDNN's kernels off where the processor has no AVX-512. With them DeepLabv3 on
# MobileNetV2 trains 1.5 times as fast on one that has AVX2 alone, and all processors take the same:
# without them the gradient of a dilated convolution does not exist on a CPU.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
