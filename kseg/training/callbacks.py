"""What happens between the steps of a run: points for TensorBoard, and an orderly stop."""

import signal
from types import FrameType

import keras
import numpy as np
import tensorflow as tf

from kseg.errors import UserError
from kseg.training import checkpoints


class StepLog(keras.callbacks.Callback):
    """Writes loss (running mean of the epoch) and learning rate, with the run's own step number.

    Keras' TensorBoard callback counts steps from 0 again after a resume.
    """

    def __init__(self, writer: tf.summary.SummaryWriter, every: int):
        super().__init__()
        self._writer = writer
        self._every = every
        self._step = 0

    def on_train_begin(self, logs=None):
        self._step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        if self._step % self._every:
            return
        with self._writer.as_default(step=self._step):
            tf.summary.scalar("loss", logs["loss"])
            rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
            tf.summary.scalar("learning_rate", rate)


class StopOnBadLoss(keras.callbacks.Callback):
    """Ends a run whose loss is not finite any more, before it spoils a checkpoint.

    Raises:
        UserError: Names the step, and what may help.
    """

    def on_train_batch_end(self, batch, logs=None):
        # The running mean of the epoch: once not finite, it stays so.
        if not np.isfinite(logs["loss"]):
            step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
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

    Use it as a context manager around the training: `received` is the signal's number, or None.
    """

    def __init__(self):
        super().__init__()
        self.received: int | None = None
        self._former = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_):
        self._restore_handlers()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def on_train_batch_end(self, batch, logs=None):
        if self.received is not None:
            self.model.stop_training = True
