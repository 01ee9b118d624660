"""Trains the network of one experiment."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from kseg import cli
from kseg.data import damage, label_checks
from kseg.formats.loading import read_initial_weights
from kseg.inference.backend import prepare_backend
from kseg.models import Segmenter
from kseg.recipe.optimizer import inner_optimizer
from kseg.runs.assembly import dtype_policy, require_trainable, rest_of_epoch
from kseg.runs.checkpoint_file import Position
from kseg.runs.distribution import DEVICE_FIELDS, make_deterministic, make_devices
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.lock import RunLock
from kseg.runs.process_group import SINGLE_PROCESS, ProcessGroup
from kseg.runs.start import start
from kseg.train.callbacks import (
    AnnounceCompilation,
    RestoreMetrics,
    SaveEvery,
    ShowProgress,
    StepLog,
    StopOnBadLoss,
    StopOnSignal,
)
from kseg.train.preparation import (
    adapted_position,
    announce,
    announce_learning_rate,
    build_network,
    freeze_parts,
    require_same_flags,
    require_same_folder,
)
from kseg.train.run_log import RunLog
from kseg.train.run_page import charts, hyperparameters
from kseg.train.training_data import TrainingData, warn_about_recipe
from kseg.train.validation import Validation
from kseg.visualization.progress import progress_bar


def train(
    experiment: Experiment,
    *,
    overwrite: bool = False,
    allow_changes: bool = False,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> int:
    """Trains, measures after epochs and keeps checkpoints; resumes a run that was stopped.

    Args:
        experiment: What to train. `data_dir` and `model_dir` must be given.
        overwrite: Whether to start again if the folder already holds a run.
        allow_changes: Whether to go on with another learning rate or other data than those of the
            run; the change is recorded.
        process_group: The processes that train together, each of which calls this function.

    Returns:
        Exit status: 0, or 128 + the number of the signal that stopped the run (130 for Ctrl-C, 143
        for SIGTERM).

    Raises:
        UserError: The data, the flags or the folder of the run do not allow it, or the loss is not
            finite.
    """
    # Of several processes only one writes, and only that one has the lock.
    locked = RunLock(experiment.model_dir) if process_group.is_main else contextlib.nullcontext()
    with locked as lock:
        trainer = Trainer(
            experiment,
            overwrite=overwrite,
            allow_changes=allow_changes,
            process_group=process_group,
            lock=lock,
        )
        with damage.reported(experiment.data_dir, (*experiment.train_split, experiment.val_split)):
            return trainer.run()


class Trainer:
    """One run: its data, its network, its folder and its position.

    The constructor checks everything, builds the network, prepares the folder and restores the
    newest checkpoint; `run` trains.

    Args:
        experiment: See `train`.
        overwrite: See `train`.
        allow_changes: See `train`.
        process_group: See `train`.
        lock: The lock of the folder; None in a process that does not write.

    Raises:
        UserError: See `train`.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        overwrite: bool,
        allow_changes: bool,
        process_group: ProcessGroup,
        lock: RunLock | None,
    ):
        if experiment.deterministic:
            make_deterministic()
        prepare_backend()
        require_trainable(experiment)
        keras.utils.set_random_seed(experiment.seed)
        self._experiment = experiment
        self._process_group = process_group
        self._data = TrainingData(experiment)
        self._label_set, self._plan = self._data.label_set, self._data.plan
        self._devices = make_devices(
            experiment.strategy,
            processes=process_group.size,
            **experiment.fields(DEVICE_FIELDS),
        )
        if process_group.is_main:
            warn_about_recipe(experiment, self._data)
        self._lock = lock
        self._run = RunFolder(experiment.model_dir, lock.require if lock else None)
        self._model, position, metrics = self._prepare(overwrite, allow_changes)
        self._position = adapted_position(
            position, self._plan, self._data.val_hash, process_group.is_main
        )
        self._metrics = metrics if self._position.step_in_epoch else {}
        process_group.require_same("step after restoring", self._position.step)
        self._validation = None
        if self._data.val_manifest:
            self._validation = Validation(
                experiment, self._data.val_manifest, self._model, process_group
            )

    def _prepare(
        self, overwrite: bool, allow_changes: bool
    ) -> tuple[Segmenter, Position, dict[str, np.ndarray]]:
        """Builds and compiles the network, prepares the folder of the run, restores the network.

        In this order, so that `--overwrite` removes no earlier run if the network cannot be built.

        Returns:
            The network, the position of the run, and the running metrics of the epoch.
        """
        experiment, run = self._experiment, self._run
        # A resumed run gets all weights from its checkpoint; other files may no longer exist.
        resumes = run.has_checkpoints() and not overwrite
        initial = None if resumes else read_initial_weights(experiment.init_from)
        require_same_flags(experiment, self._process_group)
        with self._devices.building(), dtype_policy(experiment.precision):
            model = build_network(
                experiment,
                self._data,
                self._devices,
                initial=initial,
                with_backbone_weights=not (resumes or initial),
                shows=self._process_group.is_main,
            )
        if self._process_group.is_main:
            former = start(
                run,
                experiment,
                self._label_set,
                mask_rule=self._data.mask_rule,
                bands=self._data.scene_bands,
                contents=self._data.contents,
                epoch_steps=self._plan.epoch_steps,
                overwrite=overwrite,
                allow_changes=allow_changes,
                former_owner=self._lock.former,
            )
            if former:
                announce_learning_rate(former, experiment, self._plan, run.newest_step())
        require_same_folder(run, self._process_group)
        with self._devices.building(), dtype_policy(experiment.precision):
            return model, *run.checkpoints.restore_newest(model)

    def run(self) -> int:
        """Trains until the last step or a signal; returns the exit status."""
        run, is_main = self._run, self._process_group.is_main
        if is_main:
            announce(
                self._experiment,
                self._model,
                self._plan,
                self._devices,
                self._process_group,
                self._position,
            )
        with (
            RunLog(
                run.logs, run.metrics_file, self._position.step, writes=is_main, guard=run.guard
            ) as log,
            StopOnSignal(self._process_group.all_reduce_max) as stop,
            progress_bar(
                total=self._plan.total_steps * self._experiment.batch_size,
                initial=self._position.step * self._experiment.batch_size,
                unit="image",
                disable=not is_main,
            ) as self._bar,
        ):
            if not self._position.step:
                log.describe(charts(self._label_set), hyperparameters(self._experiment))
            while not self._plan.is_finished(self._position, self._experiment.early_stop_after):
                path = self._train_epoch(log, stop)
                signal_number = stop.received()
                if signal_number is not None:
                    return self._leave(signal_number, path)
        if is_main:
            miou = self._position.best_miou
            best = f", best val mIoU {miou:.4f}" if miou >= 0 else ""
            ended = "trained" if self._position.step >= self._plan.total_steps else "stopped early"
            print(f"{ended}: {run.path}, {self._position.step:,} steps{best}")
        return 0

    def _train_epoch(self, log: RunLog, stop: StopOnSignal) -> Path:
        """Trains the rest of an epoch and measures it; returns the checkpoint written after it."""
        experiment, plan, position = self._experiment, self._plan, self._position
        if position.pending:
            return self._finish_epoch(json.loads(position.pending), log, stop)
        epoch_end = plan.end_of(position.epoch)
        freeze_parts(self._model, experiment, position.epoch)
        step_log = StepLog(position.step, log, experiment.log_every, plan.total_steps)
        begun = time.monotonic()
        loss = self._fit(
            [
                AnnounceCompilation(
                    self._model, self._devices.compiles and self._process_group.is_main
                ),
                ShowProgress(position, plan, self._bar, experiment.batch_size),
                RestoreMetrics(self._metrics),
                StopOnBadLoss(position.step),
                step_log,
                SaveEvery(
                    position.step,
                    experiment.save_every,
                    epoch_end,
                    lambda step: self._save(step, log),
                ),
                stop,
            ]
        )
        seconds = time.monotonic() - begun
        self._metrics = {}
        done = step_log.step
        if stop.received() is not None and done < epoch_end:
            return self._save(done, log)
        row = {
            "epoch": position.epoch + 1,
            "step": done,
            "loss": loss,
            "learning_rate": inner_optimizer(self._model).last_learning_rate(),
            "images_per_second": (done - position.step) * experiment.batch_size / seconds,
        }
        return self._finish_epoch(row, log, stop)

    def _finish_epoch(self, row: dict, log: RunLog, stop: StopOnSignal) -> Path:
        """Measures, logs and saves a trained epoch; returns the checkpoint.

        The epoch is saved before its validation, which is pending in this checkpoint: an error, a
        kill or a signal during the validation does not lose the epoch.
        """
        step, is_best = row["step"], False
        is_last = step == self._plan.total_steps
        if self._validation and (is_last or row["epoch"] % self._experiment.val_every == 0):
            path = self._save(step, log, pending=json.dumps(row))
            miou = self._validation.measure(row, log, stop.received_here)
            if miou is None:
                return path
            is_best = miou > self._position.best_miou
            self._position = self._position.with_best(miou)
        else:
            log.epoch(row, {}, None)
        return self._save(step, log, is_best=is_best)

    def _fit(self, callbacks: list[keras.callbacks.Callback]) -> float:
        """Calls `fit` for the rest of the epoch; returns the mean loss of the epoch."""
        position = self._position
        self._data.require_unchanged()
        batches = rest_of_epoch(
            self._experiment,
            self._plan,
            position,
            self._model,
            self._label_set.ignore_label,
            self._process_group,
        )
        labels = self._label_set
        source = f"split {', '.join(self._experiment.train_split)} of {self._experiment.data_dir}"
        with (
            self._devices.fitting(),
            label_checks.reported(labels.num_classes, labels.ignore_label, source),
        ):
            history = self._model.fit(
                batches,
                initial_epoch=position.epoch,
                epochs=position.epoch + 1,
                verbose=0,  # `ShowProgress` shows the run as a whole.
                shuffle=False,  # The dataset is shuffled already.
                callbacks=callbacks,
            )
        return history.history["loss"][-1]

    def _save(self, step: int, log: RunLog, *, is_best: bool = False, pending: str = "") -> Path:
        """Writes a checkpoint, after the points in the log that precede it."""
        log.flush()
        position = self._position.at(step, self._plan.end_of(self._position.epoch))
        self._position = dataclasses.replace(position, pending=pending)
        if not self._process_group.is_main:
            return self._run.path
        return self._run.checkpoints.save(self._model, self._position, is_best=is_best)

    def _leave(self, signal_number: int, path: Path) -> int:
        if self._process_group.is_main:
            tqdm.write(
                f"stopped at step {self._position.step}, saved {path}; the same command resumes "
                "the run"
            )
        return cli.STOPPED + signal_number
