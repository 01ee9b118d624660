"""What an import of a whole network returns."""

import dataclasses

from kseg.data.datasets import LabelSet
from kseg.models import Segmenter
from kseg.runs.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class ImportedNetwork:
    """A network with weights that another project has trained.

    Attributes:
        experiment: The network as flags.
        model: The network with its weights.
        label_set: The classes.
        report: What happened to every variable, as lines of text.
        complete: Whether every variable of the network has received its value.
        source: Where the weights come from: the name of the file, without its folder.
    """

    experiment: Experiment
    model: Segmenter
    label_set: LabelSet
    report: str
    complete: bool
    source: str
