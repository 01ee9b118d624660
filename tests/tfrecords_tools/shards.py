"""What the tests of the converters share: reading their records and parsing their flags."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from kseg import cli
from kseg.data import manifests, records


def labels(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Returns the label map of each name in a split, in the order of the records."""
    manifest = manifests.read_manifest(folder, split)
    paths = [str(path) for path in manifests.shard_paths(folder, manifest)]
    examples = map(records.decode_example, tf.data.TFRecordDataset(paths))
    return {example["filename"].numpy().decode(): example["label"].numpy() for example in examples}


def flag_values(define_flags: Callable[[], None], *arguments: str) -> flags.FlagValues:
    """Returns the flags of a program as it would parse them, separate from those of the tests."""
    values = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patched:
        for kind in ("string", "list", "integer", "float", "bool", "enum"):
            define = getattr(flags, f"DEFINE_{kind}")
            patched.setattr(flags, f"DEFINE_{kind}", functools.partial(define, flag_values=values))
        alias = functools.partial(cli.define_alias, values=values)
        patched.setattr(cli, "define_alias", alias)
        define_flags()
    values(["program", *arguments])
    return values
