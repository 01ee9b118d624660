"""Converters from raw data sets to TFRecord shards, and their checks."""

import os
import sys

# Conversion needs only `kseg.data`: `import kseg` then leaves out Keras and TensorFlow.
if "kseg" not in sys.modules:
    os.environ.setdefault("KSEG_WITHOUT_KERAS", "1")
