"""Callbacks of a training: progress, TensorBoard points, checkpoints, signals."""

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import keras
import numpy as np
from tqdm import tqdm

from kseg.errors import UserError
from kseg.recipe.optimizer import inner_optimizer
from kseg.runs import checkpoints
from kseg.runs.checkpoint_file import Position
from kseg.runs.plan import Plan
from kseg.train.run_log import RunLog


class StepCallback(keras.callbacks.Callback):
    """Calls `after_step` with the number of each step in the run, starting at 1.

    Keras counts from 0 in every `fit`. The optimizer counts updates, and with float16 there is no
    update after a gradient that overflowed.

    Args:
        done: Number of steps of the run before this `fit`.

    Attributes:
        step: Number of steps of the run that are done.
    """

    def __init__(self, done: int):
        super().__init__()
        self.step = done

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.step += 1
        self.after_step(self.step, logs)

    def after_step(self, step: int, logs: dict) -> None:
        """Called after each step; `logs` holds the running mean of the loss of the epoch."""
        raise NotImplementedError


class AnnounceCompilation(keras.callbacks.Callback):
    """Prints that XLA compiles the next step, and afterwards how long this step took.

    Without these lines a log says nothing for the minutes that a compilation may take. Keras
    compiles the step again when layers are frozen or released.

    Args:
        model: The compiled model, before `fit`. If it has its training function already, nothing is
            compiled and nothing is printed.
        enabled: Whether XLA compiles its step and this process prints.
    """

    def __init__(self, model: keras.Model, enabled: bool):
        super().__init__()
        self._is_due = enabled and model.train_function is None

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._is_due:
            self._begun = time.monotonic()
            tqdm.write("compiling the training step", file=sys.stderr)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self._is_due:
            seconds = time.monotonic() - self._begun
            tqdm.write(f"compiled; with its first step in {seconds:.0f} s", file=sys.stderr)
            self._is_due = False


class ShowProgress(StepCallback):
    """Shows how far the run is, how fast it is, and its loss and best mIoU so far.

    Args:
        position: Where the run stands.
        plan: The steps of the run.
        bar: The progress bar of the run, which counts images.
        batch_size: Number of images of a step.
    """

    def __init__(self, position: Position, plan: Plan, bar: tqdm, batch_size: int):
        super().__init__(position.step)
        self._plan = plan
        self._bar = bar
        self._batch_size = batch_size
        self._epoch = f"epoch {position.epoch + 1}/{plan.epochs}"
        self._miou = f", best mIoU {position.best_miou:.4f}" if position.best_miou >= 0 else ""

    def after_step(self, step: int, logs: dict) -> None:
        text = f"{self._epoch}, step {step}/{self._plan.total_steps}"
        self._bar.set_description_str(text, refresh=False)
        self._bar.set_postfix_str(f"loss {logs['loss']:.4f}{self._miou}", refresh=False)
        self._bar.update(self._batch_size)


class StepLog(StepCallback):
    """Logs loss (running mean of the epoch), learning rate and gradient norm.

    The first and the last step of the run are always logged.

    Args:
        done: See `StepCallback`.
        log: The log of the run.
        every: Number of steps between two points.
        last: The last step of the run.
    """

    def __init__(self, done: int, log: RunLog, every: int, last: int):
        super().__init__(done)
        self._log = log
        self._every = every
        self._last = last

    def after_step(self, step: int, logs: dict) -> None:
        if step % self._every and step not in (1, self._last):
            return
        optimizer = inner_optimizer(self.model)
        points = {
            "loss": logs["loss"],
            "learning_rate": optimizer.last_learning_rate(),
            "gradient_norm": float(keras.ops.convert_to_numpy(optimizer.gradient_norm)),
        }
        self._log.points(step, points)


class SaveEvery(StepCallback):
    """Saves checkpoints in the middle of an epoch.

    Args:
        done: See `StepCallback`.
        every: Number of steps between two checkpoints; 0 for none.
        until: The last step of this `fit`, whose checkpoint is written after the validation.
        save: Function that saves, called with the number of the step.
    """

    def __init__(self, done: int, every: int, until: int, save: Callable[[int], None]):
        super().__init__(done)
        self._every = every
        self._until = until
        self._save = save

    def after_step(self, step: int, logs: dict) -> None:
        if self._every and step % self._every == 0 and step < self._until:
            _ = self.model  # On JAX this access updates the variables with the state of `fit`.
            self._save(step)


class StopOnBadLoss(StepCallback):
    """Stops a run whose loss is not finite; `Checkpoints.save` checks the weights.

    Raises:
        UserError: The loss is not finite; the message names the step.
    """

    def after_step(self, step: int, logs: dict) -> None:
        # This is the running mean of the epoch, which stays not finite once it is.
        if not np.isfinite(logs["loss"]):
            raise UserError(
                f"The loss is {logs['loss']} at step {step}. The earlier checkpoints are complete. "
                "Try a lower --learning_rate, --warm_up_steps or --clip_norm"
            )


class RestoreMetrics(keras.callbacks.Callback):
    """Restores the running metrics of an interrupted epoch.

    Args:
        values: Values by path, as `Checkpoints.restore_newest` returns them.
    """

    def __init__(self, values: dict[str, np.ndarray]):
        super().__init__()
        self._values = values

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # `fit` resets the metrics before it calls this.
        variables = checkpoints.metric_variables(self.model)
        for path, value in self._values.items():
            variables[path].assign(value)


class StopOnSignal(keras.callbacks.Callback):
    """Stops `fit` after the current step on Ctrl-C or SIGTERM; a second signal stops it at once.

    It is a context manager around the training.

    Args:
        all_reduce_max: Function that returns the greatest number of all processes, see
            `kseg.runs.process_group.ProcessGroup`. A process that receives a signal stops all of
            them after the same step.
    """

    def __init__(self, all_reduce_max: Callable[[int], int] = int):
        super().__init__()
        self._all_reduce_max = all_reduce_max
        self._received = 0
        self._former = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_):
        self._restore_handlers()

    def received(self) -> int | None:
        """Returns the number of the received signal or None; all processes must call it."""
        agreed = self._all_reduce_max(self._received)
        if agreed:  # Assigning 0 would discard a signal that arrived in the meantime.
            self._received = agreed
        return agreed or None

    def received_here(self) -> bool:
        """Returns whether this process has received a signal; the others need not call it."""
        return bool(self._received)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.received() is not None:
            self.model.stop_training = True
