"""kseg: context modules for semantic segmentation as Keras layers, and the programs around them."""

import os

from kseg._version import __version__ as __version__

# TensorFlow's C++ log drowns the messages of the programs; set the variable yourself to see it.
# It must be set before TensorFlow is imported, and this file is the first that any program loads.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
