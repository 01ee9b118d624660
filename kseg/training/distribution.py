"""Which devices a run trains on."""

import tensorflow as tf

from kseg.errors import UserError

STRATEGIES = ("default", "mirrored")


def make_strategy(name: str, batch_size: int, precision: str = "float32") -> tf.distribute.Strategy:
    """The strategy of `--strategy`: `default` is one device, `mirrored` all GPUs of the machine.

    Without a GPU, `mirrored` takes all logical CPUs, which is how it is tested. `keras.Model.fit`
    under it cannot do several steps in one call, XLA, accumulated gradients or a scaled loss: the
    first three are no flags of ours, the last is refused here.

    Raises:
        UserError: The batch cannot be split evenly over the replicas, or the precision is float16,
            whose scaled loss each replica would scale by itself.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if precision == "mixed_float16":
        raise UserError(
            "`--strategy=mirrored` does not go with `--precision=mixed_float16`: Keras would scale "
            "the loss of each replica by itself. mixed_bfloat16 needs no scale"
        )
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    # NCCL is for GPUs only; TensorFlow would warn and fall back by itself.
    reduction = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
    if batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"`--batch_size` must be a multiple of the replicas, {strategy.num_replicas_in_sync} "
            f"{kind}s. Received: {batch_size}"
        )
    return strategy
