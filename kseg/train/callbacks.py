"""What happens between the steps of a run: points for TensorBoard, checkpoints, an orderly stop."""

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
    """Keras' progress bar, which counts the epochs of the run and not those of one `fit`.

    Args:
        epochs: Of the run.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self._all_epochs = epochs

    def set_params(self, params):
        super().set_params(params | {"epochs": self._all_epochs})


class StepCallback(keras.callbacks.Callback):
    """Calls `after_step` with the run's own number of each step, which starts at 1.

    Keras counts from 0 again in every `fit`. The optimizer counts the updates, and with float16
    there is none after a gradient that overflowed.

    Args:
        done: Steps of the run before this `fit`.

    Attributes:
        step: Steps of the run that are done.
    """

    def __init__(self, done: int):
        super().__init__()
        self.step = done

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.after_step(self.step, logs)

    def after_step(self, step: int, logs: dict) -> None:
        """`logs` holds the running mean of the epoch's loss."""
        raise NotImplementedError


class StepLog(StepCallback):
    """Writes loss (running mean of the epoch), learning rate and gradient norm of a step.

    Args:
        done: See `StepCallback`.
        log: Takes the points.
        every: Steps between two points.
    """

    def __init__(self, done: int, log: RunLog, every: int):
        super().__init__(done)
        self._log = log
        self._every = every

    def after_step(self, step, logs):
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
    """Saves in the middle of an epoch.

    Args:
        done: See `StepCallback`.
        every: Steps between two checkpoints; 0: none.
        until: The last step of this `fit`, whose checkpoint is written after validation.
        save: Called with the number of the step.
    """

    def __init__(self, done: int, every: int, until: int, save: Callable[[int], None]):
        super().__init__(done)
        self._every = every
        self._until = until
        self._save = save

    def after_step(self, step, logs):
        if self._every and step % self._every == 0 and step < self._until:
            _ = self.model  # to ask for it brings the state of `fit` into its variables on JAX
            self._save(step)


class StopOnBadLoss(StepCallback):
    """Ends a run whose loss is not finite any more; see `Checkpoints.save` for the weights.

    Raises:
        UserError: Names the step, and what may help.
    """

    def after_step(self, step, logs):
        # The running mean of the epoch: once not finite, it stays so.
        if not np.isfinite(logs["loss"]):
            raise UserError(
                f"the loss is {logs['loss']} at step {step}; the checkpoints written before are "
                "whole. A lower --learning_rate, --warm_up_steps or --clip_norm may help"
            )


class RestoreMetrics(keras.callbacks.Callback):
    """Gives the running metrics back the values they had in the middle of the epoch."""

    def __init__(self, values: dict[str, np.ndarray]):
        super().__init__()
        self._values = values

    def on_epoch_begin(self, epoch, logs=None):
        # `fit` has just reset them.
        variables = checkpoints.metric_variables(self.model)
        for path, value in self._values.items():
            variables[path].assign(value)


class StopOnSignal(keras.callbacks.Callback):
    """Ends `fit` after the running step on Ctrl-C or SIGTERM; a second signal ends it at once.

    Use it as a context manager around the training.

    Args:
        agree: Function that gives every process the greatest number of all, see
            `machines.Machines.greatest`: one that is signalled stops them all after the same step.
    """

    def __init__(self, agree: Callable[[int], int] = int):
        super().__init__()
        self._agree = agree
        self._received = 0
        self._former = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_):
        self._restore_handlers()

    def received(self) -> int | None:
        """The number of the signal that came, or None; to be asked by all processes at once."""
        agreed = self._agree(self._received)
        if agreed:  # 0 would undo a signal that has come meanwhile
            self._received = agreed
        return agreed or None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def on_train_batch_end(self, batch, logs=None):
        if self.received() is not None:
            self.model.stop_training = True
