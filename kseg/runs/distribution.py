"""Which devices a run trains on."""

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import keras
import tensorflow as tf

from kseg.errors import UserError

STRATEGIES = ("default", "mirrored")


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a batch is split over.

    Attributes:
        replicas: How many devices there are, over all processes.
        building: Makes the context that the network is built, compiled and restored in.
        fitting: Makes the context that `fit` is called in.
    """

    replicas: int = 1
    building: Callable[[], AbstractContextManager] = contextlib.nullcontext
    fitting: Callable[[], AbstractContextManager] = contextlib.nullcontext


def make_devices(
    name: str, batch_size: int, precision: str = "float32", processes: int = 1
) -> Devices:
    """The devices of `--strategy`: `default` is one, `mirrored` all GPUs of the machine.

    Without a GPU, `mirrored` takes all logical CPUs, which is how it is tested. Several processes
    always take all devices of each. On TensorFlow `fit` under the strategy cannot do several steps
    in one call, XLA, accumulated gradients or a scaled loss: the first three are no flags of ours,
    the last is refused here. Dropout drops the same places of each replica's share of a batch:
    Keras gives all replicas one seed.

    Args:
        name: One of `STRATEGIES`.
        batch_size: Images of a step, over all devices.
        precision: Of the training.
        processes: How many processes train together, on JAX; see `machines`.

    Raises:
        UserError: The batch cannot be split evenly over the replicas, or the precision is float16,
            whose scaled loss each replica would scale by itself.
    """
    if name == "default" and processes == 1:
        return Devices()
    if keras.config.backend() == "jax":
        # The pipeline deals each batch out to the processes itself.
        layout = keras.distribution.DataParallel(auto_shard_dataset=False)
        devices = Devices(layout.num_model_replicas, layout.scope, layout.scope)
    else:
        if precision == "mixed_float16":
            raise UserError(
                "`--strategy=mirrored` does not go with `--precision=mixed_float16`: Keras would "
                "scale the loss of each replica by itself. mixed_bfloat16 needs no scale"
            )
        strategy = _mirrored()
        devices = Devices(strategy.num_replicas_in_sync, strategy.scope)
    if batch_size % devices.replicas:
        raise UserError(
            "`--batch_size` must be a multiple of the replicas, one a device, "
            f"{devices.replicas}. Received: {batch_size}"
        )
    return devices


def _mirrored() -> tf.distribute.Strategy:
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    # NCCL is for GPUs only; TensorFlow would warn and fall back by itself.
    reduction = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
