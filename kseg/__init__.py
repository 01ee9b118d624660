"""kseg: context modules for semantic segmentation as Keras layers, and the programs around them.

    kseg.layers   the layers: KSAC, LKSPP, VortexPooling, GCN, ...
    kseg.models   the networks: deeplab_v3_plus, gcn_fcn, dfp_fcn
    kseg.load     a trained network: of a run, of a file, or a preset

The programs are `python -m kseg.train`, `evaluate`, `predict`, `export`, `compare`, ...
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from kseg._version import __version__

if TYPE_CHECKING:
    from kseg import layers, models

# This must be set before TensorFlow is imported: its log would hide the messages of the programs.
# Set the variable yourself to see the log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

__all__ = ["__version__", "layers", "load", "models"]


def load(path: str | os.PathLike, *, checkpoint: str = "best", **changes) -> models.Segmenter:
    """Loads a trained network with its weights, class names and class colours.

    Args:
        path: Folder of a run, as `python -m kseg.train` writes it; a `.keras` file; a folder that
            `python -m kseg.export --format=weights` has written; or the name of a preset, see
            `kseg.models.list_presets`. If there is a folder with the name of a preset, the folder
            is loaded. The first call for a preset downloads and imports its file.
        checkpoint: `best` by validation mIoU (the newest if there was no validation), `newest`, or
            the path of a checkpoint file; for the folder of a run. Defaults to `best`.
        **changes: Options of the network that differ from those of the training and fit the same
            weights, such as `output_stride=8` or `dilation_rates=(12, 24, 36)`; not for a `.keras`
            file.

    Returns:
        A `kseg.models.Segmenter`.

    Raises:
        ValueError: If there is no such run, file, preset or checkpoint, if it does not fit, or if
            the file of a preset is missing and cannot be downloaded.
    """
    _register()
    # Imported here, since it needs TensorFlow, which is not loaded on other backends otherwise.
    from kseg.formats.loading import load_network

    return load_network(path, checkpoint=checkpoint, **changes)


def _load_inference():
    return importlib.import_module("kseg.inference.segmentation")


def _register() -> None:
    """Registers the layers and networks with Keras, for saved models, and their inference."""
    importlib.import_module("kseg.layers")
    models = importlib.import_module("kseg.models")
    models.Segmenter.register_inference(_load_inference)


def __getattr__(name: str):
    if name not in ("layers", "models"):
        raise AttributeError(f"module 'kseg' has no attribute {name!r}")
    _register()
    return globals()[name]


# tfrecords_tools sets this variable: its processes need neither Keras nor TensorFlow, which would
# take half a gigabyte in each of them. Processes that they start in turn do not inherit it.
if os.environ.pop("KSEG_WITHOUT_KERAS", None) is None:
    # While Python looks for the program of `python -m kseg.NAME`, sys.argv[0] is "-m". The import
    # of this package is what brings TensorFlow, which prints lines; so they are left out here.
    if sys.argv[:1] == ["-m"] or "KSEG_PROGRAM" in os.environ:
        importlib.import_module("kseg.cli.start").start_tensorflow()
    _register()
