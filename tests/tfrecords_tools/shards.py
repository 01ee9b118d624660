"""What the tests of the converters share: the records they wrote, and their flags."""

import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from kseg.data import records


def labels(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Name -> label map of every record of a split, in the order of the records."""
    manifest = records.read_manifest(folder, split)
    paths = [str(path) for path in records.shard_paths(folder, manifest)]
    examples = map(records.decode_example, tf.data.TFRecordDataset(paths))
    return {one["filename"].numpy().decode(): one["label"].numpy() for one in examples}


def flag_values(define_flags, *arguments: str) -> flags.FlagValues:
    """The flags of a program as it would parse them, without touching those of the tests."""
    values = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patched:
        for kind in ("string", "list", "integer", "float", "bool", "enum"):
            define = getattr(flags, f"DEFINE_{kind}")
            patched.setattr(flags, f"DEFINE_{kind}", functools.partial(define, flag_values=values))
        define_flags()
    values(["program", *arguments])
    return values
