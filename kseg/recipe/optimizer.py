"""Stochastic gradient descent that clips and reports the gradient of the global batch."""

import keras
from keras import ops


def inner_optimizer(model: keras.Model) -> "SGD":
    """The optimizer of a compiled model; with float16 Keras wraps it in one that scales losses."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


@keras.saving.register_keras_serializable(package="kseg")
class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD` whose gradient norm can be read and limited over all replicas.

    Keras clips before it sums the gradients of the replicas, each replica's by its own norm, so
    that two replicas train to other weights than one device. Here the sum is measured, and clipped.

    Args:
        learning_rate: Number or schedule.
        clip_norm: Number >= 0. Largest norm of the whole gradient, the L2 of the weights included;
            0 (default): not clipped.
        **kwargs: Those of `keras.optimizers.SGD`, its own kinds of clipping aside.

    Attributes:
        gradient_norm: Variable: Euclidean norm of the last step's gradient, before clipping.
    """

    def __init__(self, learning_rate=0.01, *, clip_norm=0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.clip_norm = float(clip_norm)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), initializer="zeros", dtype="float32", aggregation="only_first_replica",
            name="gradient_norm",
        )  # fmt: skip

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if keras.config.backend() != "tensorflow":  # there is one gradient, the global batch's
            grads = self._measured(grads)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """TensorFlow alone: called by the step above for the sum over the replicas."""
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(self._measured(grads), variables, strict=True))

    def _measured(self, grads):
        squares = [ops.sum(ops.square(ops.cast(grad, "float32"))) for grad in grads]
        norm = ops.sqrt(ops.sum(ops.stack(squares)))
        self.gradient_norm.assign(norm)
        if not self.clip_norm:
            return grads
        factor = self.clip_norm / ops.maximum(norm, self.clip_norm)
        return [grad * ops.cast(factor, grad.dtype) for grad in grads]

    def last_learning_rate(self) -> float:
        """That of the last step; Keras' `learning_rate` is that of the next one."""
        if not isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return float(ops.convert_to_numpy(self.learning_rate))
        last = ops.maximum(ops.subtract(self.iterations, 1), 0)
        return float(ops.convert_to_numpy(self._learning_rate(last)))

    def get_config(self):
        return {**super().get_config(), "clip_norm": self.clip_norm}
