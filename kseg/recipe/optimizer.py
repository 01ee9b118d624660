"""Stochastic gradient descent that measures and clips the gradient of the global batch."""

from collections.abc import Mapping, Sequence

import keras
from keras import ops

from kseg.layers.types import Tensor


def inner_optimizer(model: keras.Model) -> "SGD":
    """Returns the optimizer of a compiled model, without Keras' loss scaling for float16."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


# Keras' `global_clipnorm` cannot replace this class: under MirroredStrategy `_clip_gradients` runs
# in each replica before `_backend_update_step` sums the gradients, so every replica is clipped by
# its own norm. Nor does Keras expose the norm, which training logs.
@keras.saving.register_keras_serializable(package="kseg")
class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD` that measures and clips the norm of the gradient over all replicas.

    The sum of the replicas' gradients is clipped, so that several replicas train to the same
    weights as one device. For its momentum, see `kseg.recipe.compilation`.

    Some variables can have another learning rate than the others. Each variable `w` with the factor
    `f` takes the step `v = momentum * v - f * lr * g; w = w + v`, which is exactly that of an
    optimizer with the learning rate `f * lr`. The gradient is measured and clipped before, and it
    includes the L2 of the weights, so that the factor applies to the weight decay as well. With a
    factor of 0, the variable and its velocity stay as they are, and its gradient is neither
    computed nor part of the measured norm.

    Args:
        learning_rate: Number or schedule. Defaults to 0.01, as in Keras.
        clip_norm: Number >= 0. Largest norm of the whole gradient, including that of the L2 of the
            weights. Defaults to 0, no clipping.
        learning_rate_factors: Dict from the path of a variable to a number >= 0 that multiplies its
            learning rate. Defaults to None, 1 for all variables.
        **kwargs: Arguments of `keras.optimizers.SGD`, except for its own kinds of clipping.

    Attributes:
        gradient_norm: Variable. Euclidean norm of the last step's gradient, before clipping.
        learning_rate_factors: Dict, as above. A step that was compiled keeps the factors that it
            had then; see `kseg.recipe.compilation.train_backbone`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.01,
        *,
        clip_norm: float = 0.0,
        learning_rate_factors: Mapping[str, float] | None = None,
        **kwargs,
    ):
        super().__init__(learning_rate, **kwargs)
        self.clip_norm = float(clip_norm)
        self.learning_rate_factors = dict(learning_rate_factors or {})

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), initializer="zeros", dtype="float32", aggregation="only_first_replica",
            name="gradient_norm",
        )  # fmt: skip

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        factor = self._factor(variable)
        if factor == 0:
            return
        if factor != 1:
            learning_rate = learning_rate * factor
        super().update_step(gradient, variable, learning_rate)

    def _factor(self, variable):
        """Returns the factor of a variable, which may be that of one replica."""
        if not self.learning_rate_factors:
            return 1
        known = self._trainable_variables[self._get_variable_index(variable)]
        return self.learning_rate_factors.get(known.path, 1)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if keras.config.backend() != "tensorflow":  # Elsewhere it is that of the global batch.
            grads = self._measured(grads, trainable_variables)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Measures the sum over the replicas; the TensorFlow backend calls it in the step above."""
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(self._measured(grads, variables), variables, strict=True))

    def _measured(self, grads: Sequence[Tensor], variables: Sequence) -> list[Tensor]:
        """Stores the norm of the gradients that are used, and returns the gradients clipped."""
        used = [
            grad for grad, variable in zip(grads, variables, strict=True) if self._factor(variable)
        ]
        squares = [ops.sum(ops.square(ops.cast(grad, "float32"))) for grad in used]
        norm = ops.sqrt(ops.sum(ops.stack(squares)))
        self.gradient_norm.assign(norm)
        if not self.clip_norm:
            return grads
        factor = self.clip_norm / ops.maximum(norm, self.clip_norm)
        return [grad * ops.cast(factor, grad.dtype) for grad in grads]

    def last_learning_rate(self) -> float:
        """Returns the rate of the last step; `learning_rate` is that of the next one."""
        if not isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return float(ops.convert_to_numpy(self.learning_rate))
        last = ops.maximum(ops.subtract(self.iterations, 1), 0)
        return float(ops.convert_to_numpy(self._learning_rate(last)))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "clip_norm": self.clip_norm,
            "learning_rate_factors": dict(self.learning_rate_factors),
        }
