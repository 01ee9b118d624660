"""A network that was trained elsewhere as the folder of a run."""

import os

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs import environment, records
from kseg.runs.checkpoints import Checkpoints
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.folder import RunFolder
from kseg.runs.start import write_labels


def new_run(model_dir: str | os.PathLike) -> RunFolder:
    """Returns the folder of a run that is yet to be written.

    Raises:
        UserError: The folder holds files already.
    """
    run = RunFolder(model_dir)
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise UserError(f"`--model_dir` must be new or empty. Received: {run.path}")
    return run


def write_run(
    model_dir: str | os.PathLike,
    experiment: Experiment,
    model: Segmenter,
    label_set: LabelSet,
    *,
    source: str,
) -> RunFolder:
    """Writes a run folder with flags, labels and one checkpoint, `best.npz`, at step 0.

    Every program takes it as it takes the folder of a training. `kseg.train` does not go on with
    it, and says that `--init_from` starts from its weights.

    Args:
        model_dir: Folder of the run, which must be new or empty.
        experiment: The network, as flags. Its recipe is what a training from it would begin with.
        model: The network with its weights; it need not be compiled.
        label_set: The classes.
        source: Where the weights come from, for `environment.json`.

    Raises:
        UserError: The folder holds files already, or a weight is not finite.
    """
    run = new_run(model_dir)
    Checkpoints(run.checkpoint_folder).save_weights(model)
    write_labels(run, label_set)
    records.append(run.environment_file, {**environment.describe(), "imported_from": source})
    # The flags are written last: a folder without them holds no run.
    files.write_text(run.experiment_file, to_flagfile(experiment))
    return run
