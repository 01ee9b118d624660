"""Learning rates over the steps of a run, by the name that a flag takes."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kseg")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 over the first steps, then follows a schedule from its own start.

    Args:
        schedule: What follows.
        steps: Integer >= 1, how many steps the rise takes; the schedule counts from its end.
        learning_rate: What the rise ends at.
    """

    def __init__(self, schedule, *, steps, learning_rate):
        self.schedule = schedule
        self.steps = steps
        self.learning_rate = learning_rate

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = self.learning_rate * step / self.steps
        return ops.where(
            step < self.steps, rising, self.schedule(ops.maximum(step - self.steps, 0.0))
        )

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "steps": self.steps, "learning_rate": self.learning_rate}

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config.pop("schedule"))
        return cls(schedule, **config)


def poly(learning_rate, *, total_steps, steps_per_epoch, power=0.9, end=0.0, every=None):
    """DeepLab: from `learning_rate` to `end` by `(1 - step / total_steps) ** power`."""
    return keras.optimizers.schedules.PolynomialDecay(learning_rate, total_steps, end, power=power)


def linear(learning_rate, *, total_steps, steps_per_epoch, power=None, end=None, every=None):
    """DFP: `learning_rate * (T - e) / T` in epoch e of T, the same for a whole epoch."""
    epochs = -(-total_steps // steps_per_epoch)  # the last one may be a part of one
    return _stairs([learning_rate * (epochs - e) / epochs for e in range(epochs)], steps_per_epoch)


def halving(learning_rate, *, total_steps, steps_per_epoch, power=None, end=None, every=None):
    """KSAC on ADE20K: halved every `every` steps."""
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ValueError(f"`every` must be an integer >= 1. Received: {every!r}")
    return keras.optimizers.schedules.ExponentialDecay(learning_rate, every, 0.5, staircase=True)


def constant(learning_rate, *, total_steps, steps_per_epoch, power=None, end=None, every=None):
    """`learning_rate` throughout."""
    return _stairs([learning_rate], total_steps)


def _stairs(values, steps):
    """Each value for so many steps, the last one for ever."""
    boundaries = [steps * number for number in range(1, len(values))]
    if not boundaries:
        boundaries, values = [steps], values * 2
    # Keras holds a value up to and with its boundary.
    boundaries = [boundary - 1 for boundary in boundaries]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


# What a flag names -> function of (learning_rate, total_steps=, steps_per_epoch=, power=, end=,
# every=) that returns a Keras schedule.
SCHEDULES = {"poly": poly, "linear": linear, "halving": halving, "constant": constant}
