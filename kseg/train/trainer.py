"""Trains the network of one experiment."""

import math
import time
import zlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kseg.data.augment import warn_about_crop_size
from kseg.data.datasets import LabelSet
from kseg.data.pipeline import eval_dataset, train_steps
from kseg.data.records import Manifest, read_manifest
from kseg.errors import UserError
from kseg.inference.backend import leave_gpus_to_jax
from kseg.inference.evaluator import Evaluator
from kseg.inference.scorer import classifier
from kseg.models import without_auxiliary
from kseg.recipe.compilation import freeze_batch_norms
from kseg.recipe.optimizer import inner_optimizer
from kseg.runs.assembly import (
    check_backend_fits,
    compile_experiment,
    dtype_policy,
    rest_of_epoch,
)
from kseg.runs.distribution import Devices, make_devices
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.initial_weights import read_earlier, take_weights
from kseg.runs.machines import ALONE, Machines
from kseg.runs.plan import Plan
from kseg.train.callbacks import (
    EpochBar,
    RestoreMetrics,
    SaveEvery,
    StepLog,
    StopOnBadLoss,
    StopOnSignal,
)
from kseg.train.run_log import RunLog
from kseg.train.run_page import charts, hyperparameters
from kseg.visualization import label_maps, sheets

PICTURES = 4  # validation images drawn after each epoch
STOPPED = 128  # added to the signal's number in the exit status, as shells do


def train(experiment: Experiment, *, overwrite: bool = False, machines: Machines = ALONE) -> int:
    """Trains, measures after epochs and keeps checkpoints; resumes a run that was stopped.

    Args:
        experiment: What to train. `data_dir` and `model_dir` must be given.
        overwrite: Begin anew where the folder holds a run already.
        machines: The processes that train together, each of which calls this.

    Returns:
        Exit status: 0, or 128 + the number of the signal that stopped it (130 for Ctrl-C, 143 for
        SIGTERM).

    Raises:
        UserError: Data, flags or the run's folder do not allow it, or the loss is not finite.
    """
    leave_gpus_to_jax()
    check_backend_fits(experiment)
    keras.utils.set_random_seed(experiment.seed)
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    label_set = read_manifest(experiment.data_dir, experiment.train_split[0]).label_set()
    plan = Plan.of(
        train_steps(experiment.data_dir, experiment.train_split, experiment.batch_size),
        epochs=experiment.epochs,
        steps=experiment.steps,
    )
    devices = make_devices(
        experiment.strategy, experiment.batch_size, experiment.precision, machines.processes
    )
    val_manifest = _val_manifest(experiment, label_set)
    if experiment.class_weights and len(experiment.class_weights) != label_set.num_classes:
        raise UserError(
            f"`--class_weights` must be one number for each of the {label_set.num_classes} "
            f"classes of the data. Received: {len(experiment.class_weights)}"
        )
    if experiment.model == "deeplab_v3_plus":  # the networks that resize with align_corners
        warn_about_crop_size(experiment.crop_size, experiment.output_stride)

    run = RunFolder(experiment.model_dir)
    # A resumed run takes all weights from its checkpoint; other files may be gone by now.
    resumes = run.has_checkpoints() and not overwrite
    earlier = read_earlier(experiment.init_from) if not resumes else None
    if machines.writes:
        run.start(experiment, label_set, overwrite=overwrite)
        run.checkpoints.remove_unfinished()
    _check_agreement(experiment, run, machines)
    with devices.building(), dtype_policy(experiment.precision):
        model = experiment.build_model(
            label_set.num_classes, with_backbone_weights=not (resumes or earlier)
        )
        if earlier:
            taken = take_weights(model, *earlier)
            if machines.writes:
                print(taken)
        if experiment.freeze_batch_norm_epoch == 0:
            freeze_batch_norms(model)
        compile_experiment(
            model, experiment, plan, ignore_label=label_set.ignore_label, replicas=devices.replicas
        )
        position, metrics = run.checkpoints.restore_newest(model)
    machines.check_same("step after restoring", position.step)
    validation = _Validation(experiment, val_manifest, model, machines) if val_manifest else None
    if machines.writes:
        _announce(experiment, model, plan, devices, machines, position)

    with (
        RunLog(run.logs, run.metrics_file, position.step, writes=machines.writes) as log,
        StopOnSignal(machines.greatest) as stop,
    ):
        if not position.step:
            log.describe(charts(label_set), hyperparameters(experiment))

        def save(step: int, is_best: bool = False) -> Path:
            nonlocal position
            log.flush()
            position = position.at(step, plan.end_of(position.epoch))
            if not machines.writes:
                return run.path
            return run.checkpoints.save(model, position, is_best=is_best)

        while position.step < plan.total_steps:
            epoch_end = plan.end_of(position.epoch)
            if 0 <= experiment.freeze_batch_norm_epoch <= position.epoch:
                freeze_batch_norms(model)
            begun, first = time.monotonic(), position.step
            batches = rest_of_epoch(
                experiment, plan, position, label_set.ignore_label, len(model.outputs), machines
            )
            step_log = StepLog(first, log, experiment.log_every)
            with devices.fitting():
                history = model.fit(
                    batches,
                    initial_epoch=position.epoch,
                    epochs=position.epoch + 1,
                    verbose="auto" if machines.writes else 0,
                    shuffle=False,  # the dataset shuffles itself
                    callbacks=[
                        EpochBar(plan.epochs),
                        RestoreMetrics(metrics),
                        StopOnBadLoss(first),
                        step_log,
                        SaveEvery(first, experiment.save_every, epoch_end, save),
                        stop,
                    ],
                )
            seconds = time.monotonic() - begun
            metrics = {}
            done = step_log.step
            received = stop.received()
            if received is not None and done < epoch_end:
                return _leave(received, save(done), done, machines)
            row = {
                "epoch": position.epoch + 1,
                "step": done,
                "loss": history.history["loss"][-1],
                "learning_rate": inner_optimizer(model).last_learning_rate(),
                "images_per_second": (done - first) * experiment.batch_size / seconds,
            }
            miou = position.best_miou
            is_last = done == plan.total_steps
            if validation and (is_last or (position.epoch + 1) % experiment.val_every == 0):
                miou = validation.measure(row, log)
            else:
                log.epoch(row, {}, None)
            is_best = miou > position.best_miou
            position = position.with_best(miou)
            path = save(done, is_best)
            received = stop.received()
            if received is not None:
                return _leave(received, path, done, machines)
    if machines.writes:
        best = f", best val mIoU {position.best_miou:.4f}" if experiment.val_split else ""
        print(f"trained: {run.path}{best}")
    return 0


def _check_agreement(experiment: Experiment, run: RunFolder, machines: Machines) -> None:
    """Raises `UserError` unless all processes train the same in the same folder; waits for all."""
    flagfile = experiment.replace(data_dir="", model_dir="").to_flagfile()
    machines.check_same("flags (checksum)", zlib.crc32(flagfile.encode()))
    machines.check_same(
        "newest checkpoint (step; -1: no run), in a `--model_dir` that all of them see",
        run.newest_step(),
    )


class _Validation:
    """Measures the network after an epoch and draws a fixed few of the validation images.

    Each process measures its part of the images; process 0 draws.
    """

    def __init__(
        self, experiment: Experiment, manifest: Manifest, model: keras.Model, machines: Machines
    ):
        self._machines = machines
        self._total = -(-manifest.num_examples // machines.processes)
        self._label_set = manifest.label_set()
        self._dataset = eval_dataset(
            experiment.data_dir,
            experiment.val_split,
            num_workers=machines.processes,
            worker_index=machines.index,
        )
        network = without_auxiliary(model)
        self._evaluator = Evaluator(network, self._label_set)
        self._classify = classifier(network)

    def measure(self, row: dict, log: RunLog) -> float:
        """Completes the row of an epoch, logs it, and returns the mIoU."""
        figures = self._evaluator(
            self._dataset,
            self._total,
            shows_progress=self._machines.writes,
            add_up=self._machines.add_up,
        )
        if not self._machines.writes:
            return figures.miou
        row |= {"val_miou": figures.miou, "val_pixel_accuracy": float(figures.pixel_accuracy)}
        named = zip(self._label_set.names, figures.iou, strict=True)
        iou = {name: float(value) for name, value in named if not math.isnan(value)}
        log.epoch(row, iou, self._draw())
        print(
            f"epoch {row['epoch']}: val mIoU {figures.miou:.4f}, "
            f"pixel accuracy {figures.pixel_accuracy:.4f}"
        )
        return figures.miou

    def _draw(self) -> np.ndarray:
        rows = []
        for images, labels in self._dataset.take(PICTURES).as_numpy_iterator():
            predicted = self._classify(images[:1])[0].numpy()
            colours = self._label_set.colours
            rows.append(
                (
                    images[0],
                    label_maps.colourise(labels[0], colours),
                    label_maps.colourise(predicted, colours),
                )
            )
        return np.asarray(sheets.contact_sheet(rows, ("image", "label", "prediction")))


def _val_manifest(experiment: Experiment, label_set: LabelSet) -> Manifest | None:
    if not experiment.val_split:
        return None
    try:
        manifest = read_manifest(experiment.data_dir, experiment.val_split)
    except UserError as error:
        raise UserError(f"{error}. Without validation: `--val_split=`") from error
    if manifest.label_set() != label_set:
        raise UserError(
            f"`--val_split` must have the classes of {experiment.train_split[0]!r}, "
            f"{', '.join(label_set.names)}. Received: {', '.join(manifest.names)}"
        )
    return manifest


def _announce(
    experiment: Experiment, model, plan: Plan, devices: Devices, machines: Machines, position
) -> None:
    replicas = devices.replicas
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    name = experiment.context or experiment.model
    print(f"{name} on {experiment.backbone}, {trainable:,} trainable parameters")
    print(
        f"{plan.total_steps:,} steps in {plan.epochs} epochs, batch {experiment.batch_size}, "
        f"learning rate {experiment.learning_rate:g}, {experiment.schedule}"
    )
    if replicas > 1:
        where = f" in {machines.processes} processes" if machines.processes > 1 else ""
        print(
            f"{replicas} replicas{where}, {experiment.batch_size // replicas} images each; batch "
            f"normalisation and loss over all {experiment.batch_size}; the learning rate is not "
            "scaled"
        )
    if position.step:
        print(f"resumed at step {position.step}, epoch {position.epoch + 1}")


def _leave(signal_number: int, path, step: int, machines: Machines) -> int:
    if machines.writes:
        print(f"\nstopped at step {step}, saved {path}; the same command goes on from there")
    return STOPPED + signal_number
