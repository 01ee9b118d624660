"""The start of a training in the folder of a run: a new run, or one that goes on.

A run that goes on must be the same experiment on the same data. Some flags may change, because they
do not decide what a step learns; others may change if the user allows it. Every change is recorded.
"""

import datetime
import json
import shutil
from collections.abc import Mapping

from kseg import cli, files
from kseg.data import scene_bands
from kseg.data.datasets import LabelSet
from kseg.data.masks import CLASS_IDS, MaskRule
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.runs import data_contents, environment, lock, records
from kseg.runs.data_contents import Contents
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.folder import RunFolder
from kseg.runs.plan import Plan
from kseg.runs.rules import to_text

# Flags that decide how often something is done, and not what a step learns. With XLA, which
# `jit_compile` decides, dropout draws other random numbers, which are as good as the former ones.
_FREE = (
    "log_every",
    "save_every",
    "val_every",
    "early_stop_after",
    "keep_checkpoints",
    "jit_compile",
)
_ON_PERMISSION = ("learning_rate",)
_TOTAL = ("epochs", "steps")

Changes = dict[str, tuple[str, str]]


def start(
    run: RunFolder,
    experiment: Experiment,
    label_set: LabelSet,
    *,
    mask_rule: MaskRule = CLASS_IDS,
    bands: SceneBands | None = None,
    contents: Mapping[str, Contents] | None = None,
    epoch_steps: int = 1,
    overwrite: bool = False,
    allow_changes: bool = False,
    former_owner: str = "",
) -> Experiment | None:
    """Prepares the folder of a run for training.

    The flags, the labels, what the masks meant, the hashes of the data, the bands of scenes, the
    versions and the commit are written before training begins. A folder that has flags
    but no checkpoint was left by a failed start; the run starts from the beginning with the
    present flags.

    Args:
        run: The folder.
        experiment: The experiment.
        label_set: The classes of the data.
        mask_rule: What the masks meant. Defaults to class ids.
        bands: How the images of the data were made from scenes. Defaults to None: they were not.
        contents: What each split holds. Defaults to None: it is neither recorded nor compared.
        epoch_steps: Number of steps of an epoch of these data. Defaults to 1.
        overwrite: Whether an earlier run in the folder is removed. A folder that is not a run is
            left as it is.
        allow_changes: Whether a run goes on with another learning rate or other data.
        former_owner: Token of the training that had the lock of the folder before, see
            `lock.RunLock`. Its temporary files are removed.

    Returns:
        The experiment of the run before the changes; None for a new run.

    Raises:
        UserError: The folder holds another experiment, other labels or data, results without a
            checkpoint, or other files.
    """
    # A `RunFolder` reads each file only once. A new one is used here, so that the one of the caller
    # reads the files as they are after the changes.
    run = RunFolder(run.path, run.guard)
    with cli.writing({"model_dir": run.path}):
        if run.guard:
            run.guard()
        for folder in (run.path, run.checkpoint_folder, run.logs):
            files.remove_partials(folder, of=former_owner)
        if overwrite and run.experiment_file.is_file():
            _clear(run)
        former_experiment = None
        if run.experiment_file.is_file() and run.has_checkpoints():
            former_experiment = run.experiment
            changes = _accepted_changes(
                run, experiment, label_set, bands, contents or {}, epoch_steps, allow_changes
            )
            _record_changes(run, changes)
        else:
            _refuse_other_files(run)
            write_labels(run, label_set, mask_rule)
            if bands is None:
                run.scene_bands_file.unlink(missing_ok=True)
            else:
                scene_bands.write_file(run.scene_bands_file, bands)
        if contents is not None:
            files.write_text(run.data_file, data_contents.to_text(contents), run.guard)
        records.append(run.environment_file, environment.describe(), run.guard)
        # The flags are written last: a folder without them holds no run.
        files.write_text(run.experiment_file, to_flagfile(experiment), run.guard)
        return former_experiment


def _clear(run: RunFolder) -> None:
    """Removes a run, but no other files in its folder.

    The flags stay until the new run writes its own, so that a folder that was cleared in part or in
    whole counts as that of a failed start, whatever else it holds.
    """
    scores = ("eval.json", "eval.csv", "confusion.png", "images.csv", "worst.png")
    for name in (*scores, "predictions.npz"):
        (run.path / name).unlink(missing_ok=True)
    for path in run.own_files:
        if path != run.experiment_file:
            path.unlink(missing_ok=True)
    for folder in (run.checkpoint_folder, run.logs):
        if folder.is_dir():
            shutil.rmtree(folder)


def _refuse_other_files(run: RunFolder) -> None:
    """Raises `UserError` unless a folder without checkpoints is empty or that of a failed start."""
    if not run.experiment_file.is_file():
        # A start that was killed may have written these files before the flags.
        unfinished = {
            run.path / lock.NAME,
            run.labels_file,
            run.data_file,
            run.scene_bands_file,
            run.environment_file,
            *files.partials(run.path),
        }
        strangers = [path for path in run.path.glob("*") if path not in unfinished]
        if strangers:
            raise UserError(
                f"`--model_dir` must be new, empty or the folder of a run. {run.path} holds "
                f"other files: {', '.join(sorted(path.name for path in strangers)[:5])}"
            )
        return
    best = run.checkpoint_folder / "best.npz"
    results = [path for path in (best, run.eval_file) if path.is_file()]
    if results:
        start_from = f", `--init_from={best}` with another `--model_dir` starts from its weights"
        raise UserError(
            f"{run.path} must hold a checkpoint to go on from, step-<number>.npz. Found only "
            f"{', '.join(str(path.relative_to(run.path)) for path in results)}. `--overwrite` "
            f"removes the run and starts again{start_from if best in results else ''}"
        )
    run.metrics_file.unlink(missing_ok=True)


def write_labels(run: RunFolder, label_set: LabelSet, mask_rule: MaskRule = CLASS_IDS) -> None:
    """Writes the classes of a run, and what the masks meant from which its data were made."""
    labels = {
        "names": label_set.names,
        "colours": label_set.colours,
        "ignore_label": label_set.ignore_label,
        "masks_are": mask_rule.masks_are,
    }
    if mask_rule.mask_colours:
        labels["mask_colours"] = mask_rule.mask_colours
    files.write_text(run.labels_file, json.dumps(labels, indent=1) + "\n", run.guard)


def _accepted_changes(
    run: RunFolder,
    experiment: Experiment,
    label_set: LabelSet,
    bands: SceneBands | None,
    contents: Mapping[str, Contents],
    epoch_steps: int,
    allow_changes: bool,
) -> Changes:
    """Returns the changes of the flags and data of a run.

    Raises:
        UserError: A change makes another experiment, or needs the permission of the user.
    """
    free, on_permission, other = {}, {}, {}
    flags = run.experiment.differences(experiment)
    longer = _total_steps(experiment, epoch_steps) >= _total_steps(run.experiment, epoch_steps)
    former = data_contents.read_file(run.data_file)
    for name, (old, new) in flags.items():
        if name in _FREE or (name in _TOTAL and longer):
            kind = free
        elif name == "shuffle_buffer" and _holds_all(min(old, new), experiment, contents):
            kind = free
        else:
            kind = on_permission if name in _ON_PERMISSION else other
        kind[f"--{name}"] = (to_text(old), to_text(new))
    if label_set != run.label_set:
        other["labels"] = (_classes(run.label_set), _classes(label_set))
    if bands != run.scene_bands:
        other["scene bands"] = (str(run.scene_bands), str(bands))
    for split in contents.keys() & former.keys():
        if contents[split] != former[split]:
            on_permission[f"data of split {split!r}"] = (str(former[split]), str(contents[split]))
    if other:
        raise UserError(
            f"{run.path} holds another experiment. Give another `--model_dir`, or "
            f"`--overwrite` to start again:\n  {_lines(other | on_permission)}"
        )
    if on_permission and not allow_changes:
        raise UserError(
            f"{run.path} was trained with other values. `--allow_changes` goes on with the new "
            f"ones and records them:\n  {_lines(on_permission)}"
        )
    return free | on_permission


def _total_steps(experiment: Experiment, epoch_steps: int) -> int:
    return Plan.of(epoch_steps, epochs=experiment.epochs, steps=experiment.steps).total_steps


def _holds_all(records: int, experiment: Experiment, contents: Mapping[str, Contents]) -> bool:
    """Returns whether a shuffle buffer holds all training images, so that it decides no order."""
    held = [contents.get(split) for split in experiment.train_split]
    return all(held) and records >= sum(split.examples for split in held)


def _classes(label_set: LabelSet) -> str:
    colours = (" ".join(map(str, colour)) for colour in label_set.colours)
    classes = (f"{name} ({colour})" for name, colour in zip(label_set.names, colours, strict=True))
    return (
        f"{label_set.num_classes} classes: {', '.join(classes)}, ignored {label_set.ignore_label}"
    )


def _lines(changes: Changes) -> str:
    return "\n  ".join(
        f"{name}: {old or 'empty'} in the run, {new or 'empty'} in this command"
        for name, (old, new) in changes.items()
    )


def _record_changes(run: RunFolder, changes: Changes) -> None:
    """Adds the changes to the record of the run, once if the start is killed and repeated."""
    if not changes:
        return
    entry = {"step": run.newest_step(), "changes": {name: list(changes[name]) for name in changes}}
    recorded = records.read(run.changes_file)
    if recorded and {key: recorded[-1].get(key) for key in entry} == entry:
        return
    entry["time"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    records.append(run.changes_file, entry, run.guard)
    print(f"the run goes on with changes:\n  {_lines(changes)}")
