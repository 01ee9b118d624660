"""What the programs import, and the search for GPUs, for processes that are forked afterwards."""

import tensorflow as tf

import kseg.models  # noqa: F401

tf.config.list_physical_devices()
