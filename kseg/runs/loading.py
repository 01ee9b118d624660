"""`kseg.load`: a trained network from the folder of a run."""

import os

from kseg.models import Segmenter
from kseg.runs.folder import RunFolder


def load_network(path: str | os.PathLike, *, checkpoint: str = "best", **changes) -> Segmenter:
    """Loads a trained network; see `kseg.load`."""
    run = RunFolder(path)
    experiment = run.experiment.replace(**changes) if changes else None
    return run.load_model(checkpoint, experiment)
