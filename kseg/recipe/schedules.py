"""Learning-rate schedules, by the name that a flag takes."""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from kseg.layers import arguments
from kseg.layers.types import Tensor


@keras.saving.register_keras_serializable(package="kseg")
class WarmUp(LearningRateSchedule):
    """Rises linearly from 0 over the first steps, then follows another schedule from its start.

    Args:
        schedule: The schedule that follows.
        steps: Integer >= 1. Number of steps of the rise; the schedule counts from its end.
        learning_rate: Float. Learning rate at the end of the rise.
    """

    def __init__(self, schedule: LearningRateSchedule, *, steps: int, learning_rate: float):
        self.schedule = schedule
        self.steps = steps
        self.learning_rate = learning_rate

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        rising = self.learning_rate * step / self.steps
        return ops.where(
            step < self.steps, rising, self.schedule(ops.maximum(step - self.steps, 0.0))
        )

    def get_config(self) -> dict:
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "steps": self.steps, "learning_rate": self.learning_rate}

    @classmethod
    def from_config(cls, config: dict) -> "WarmUp":
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, steps=config["steps"], learning_rate=config["learning_rate"])


def poly(
    learning_rate: float, *, total_steps: int, power: float = 0.9, end: float = 0.0, **_
) -> LearningRateSchedule:
    """DeepLab: decreases from `learning_rate` to `end` by `(1 - step / total_steps) ** power`."""
    return keras.optimizers.schedules.PolynomialDecay(learning_rate, total_steps, end, power=power)


def linear(
    learning_rate: float, *, total_steps: int, steps_per_epoch: int, **_
) -> LearningRateSchedule:
    """DFP: `learning_rate * (T - e) / T` in epoch e of T, constant within an epoch.

    After a warm-up, epochs are counted from its end.
    """
    epochs = -(-total_steps // steps_per_epoch)  # The last epoch may be incomplete.
    return _stairs([learning_rate * (epochs - e) / epochs for e in range(epochs)], steps_per_epoch)


def halving(learning_rate: float, *, every: int, **_) -> LearningRateSchedule:
    """KSAC on ADE20K: the learning rate is halved every `every` steps."""
    every = arguments.positive_integer("every", every)
    return keras.optimizers.schedules.ExponentialDecay(learning_rate, every, 0.5, staircase=True)


def constant(learning_rate: float, *, total_steps: int, **_) -> LearningRateSchedule:
    """The learning rate does not change."""
    return _stairs([learning_rate], total_steps)


def _stairs(values, steps):
    """Returns a schedule with each value for `steps` steps, and the last one from then on."""
    boundaries = [steps * number for number in range(1, len(values))]
    if not boundaries:
        boundaries, values = [steps], values * 2
    # Keras keeps a value up to and including its boundary.
    boundaries = [boundary - 1 for boundary in boundaries]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


# Name of a schedule, as a flag takes it -> function of (learning_rate, total_steps=,
# steps_per_epoch=, power=, end=, every=) that returns a Keras schedule.
SCHEDULES = {"poly": poly, "linear": linear, "halving": halving, "constant": constant}


def learning_rates(
    learning_rate: float,
    *,
    schedule: str,
    total_steps: int,
    steps_per_epoch: int,
    learning_rate_power: float = 0.9,
    end_learning_rate: float = 0.0,
    halve_every: int = 0,
    warm_up_steps: int = 0,
) -> LearningRateSchedule:
    """Returns the learning rate of a run as a function of the step.

    Args:
        learning_rate: Float. Learning rate at step 0, or at the end of the warm-up.
        schedule: String. A name of `SCHEDULES`.
        total_steps: Integer. Number of steps of the whole run.
        steps_per_epoch: Integer. Number of steps of an epoch, for schedules that change by epoch.
        learning_rate_power: Float. For `"poly"`, the exponent of `1 - step / total_steps`.
            Defaults to 0.9 (DeepLab).
        end_learning_rate: Float. For `"poly"`, the learning rate at the end. Defaults to 0
            (DeepLab).
        halve_every: Integer. For `"halving"`, the number of steps between two halvings.
        warm_up_steps: Integer. Number of steps over which the learning rate first rises linearly
            from 0. Defaults to 0, no warm-up.
    """
    rates = SCHEDULES[schedule](
        learning_rate,
        total_steps=max(total_steps - warm_up_steps, 1),
        steps_per_epoch=steps_per_epoch,
        power=learning_rate_power,
        end=end_learning_rate,
        every=halve_every,
    )
    if warm_up_steps:
        rates = WarmUp(rates, steps=warm_up_steps, learning_rate=learning_rate)
    return rates
