"""Callbacks of a training: progress bar, TensorBoard points, checkpoints, signals."""

import signal
from collections.abc import Callable
from types import FrameType

import keras
import numpy as np

from kseg.errors import UserError
from kseg.recipe.optimizer import inner_optimizer
from kseg.runs import checkpoints
from kseg.train.run_log import RunLog


class EpochBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar with the number of epochs of the run instead of those of one `fit`.

    Args:
        epochs: Number of epochs of the run.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self._all_epochs = epochs

    def set_params(self, params: dict) -> None:
        super().set_params(params | {"epochs": self._all_epochs})


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


class StepLog(StepCallback):
    """Logs loss (running mean of the epoch), learning rate and gradient norm.

    Args:
        done: See `StepCallback`.
        log: The log of the run.
        every: Number of steps between two points.
    """

    def __init__(self, done: int, log: RunLog, every: int):
        super().__init__(done)
        self._log = log
        self._every = every

    def after_step(self, step: int, logs: dict) -> None:
        if step % self._every:
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
                "Try a lower --learning_rate, --warm_up_steps or --clip_norm. Labels that are not "
                "classes have this effect, too: python -m tfrecords_tools.check_records finds them"
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
