"""Imports what every program imports, so that processes forked from it need not do so again."""

import tensorflow as tf

import kseg.models  # noqa: F401

tf.config.list_physical_devices()  # The search for GPUs prints lines once in a process.
