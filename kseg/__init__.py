"""kseg: context modules for semantic segmentation as Keras layers, and the programs around them.

    kseg.layers   the layers: KSAC, LKSPP, VortexPooling, GCN, ...
    kseg.models   the networks: deeplab_v3_plus, gcn_fcn, dfp_fcn
    kseg.load     a trained network from the folder of a run

The programs are `python -m kseg.train`, `evaluate`, `predict`, `export`, `compare`, ...
"""

import os

# This must be set before TensorFlow is imported: its log would hide the messages of the programs.
# Set the variable yourself to see the log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from kseg import layers, models  # noqa: E402
from kseg._version import __version__  # noqa: E402

__all__ = ["__version__", "layers", "load", "models"]


def load(path: str | os.PathLike, *, checkpoint: str = "best", **changes) -> models.Segmenter:
    """Loads a trained network with its weights, class names and class colours.

    Args:
        path: Folder of a run, as `python -m kseg.train` writes it.
        checkpoint: `best` by validation mIoU (the newest if there was no validation), `newest`, or
            the path of a checkpoint file. Defaults to `best`.
        **changes: Options of the network that differ from those of the training and fit the same
            weights, such as `output_stride=8` or `dilation_rates=(12, 24, 36)`.

    Returns:
        A `kseg.models.Segmenter`.

    Raises:
        ValueError: If there is no run or checkpoint, or if it does not fit.
    """
    # Imported here, since it needs TensorFlow, which is not loaded on other backends otherwise.
    from kseg.runs.loading import load_network

    return load_network(path, checkpoint=checkpoint, **changes)


def _load_inference():
    from kseg.inference import segmentation

    return segmentation


models.Segmenter.register_inference(_load_inference)
