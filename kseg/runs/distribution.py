"""The devices that a run trains on."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import keras
import tensorflow as tf

from kseg.errors import UserError


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices over which a batch is split.

    Attributes:
        replicas: Number of devices, over all processes.
        building: Makes the context in which the network is built, compiled and restored.
        fitting: Makes the context in which `fit` is called.
    """

    replicas: int = 1
    building: Callable[[], AbstractContextManager] = contextlib.nullcontext
    fitting: Callable[[], AbstractContextManager] = contextlib.nullcontext


def make_deterministic() -> None:
    """Makes TensorFlow compute the same bits in every run. Call it before anything is computed.

    On a CPU, operations that run at the same time share its threads in another way in each run,
    which changes the order of sums. Therefore one operation runs after the other there, each on
    all threads.
    """
    tf.config.experimental.enable_op_determinism()
    if tf.config.list_physical_devices("GPU"):
        return
    try:
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # Only in a Python process that has used TensorFlow before.
        print(
            "warning: `--deterministic` comes too late in this process, so that the last bits may "
            "differ from those of another run",
            file=sys.stderr,
        )


def make_devices(
    name: str, batch_size: int, precision: str = "float32", processes: int = 1
) -> Devices:
    """Returns the devices of `--strategy`: `default` is one, `mirrored` all GPUs of the machine.

    Without a GPU, `mirrored` uses all logical CPUs, which is how it is tested. Several processes
    always use all devices of each. On TensorFlow, `fit` under the strategy supports neither several
    steps in one call nor XLA, accumulated gradients or a scaled loss. kseg has no flags for the
    first three and refuses the last here. Dropout drops the same positions of each replica's part
    of a batch, since Keras gives all replicas the same seed.

    Args:
        name: One of `kseg.runs.rules.STRATEGIES`.
        batch_size: Images in a step, over all devices.
        precision: Precision of the training.
        processes: Number of processes that train together, on JAX; see `process_group`.

    Raises:
        UserError: The batch cannot be split evenly over the replicas, or the precision is float16,
            for which each replica would scale its loss separately.
    """
    if name == "default" and processes == 1:
        return Devices()
    if keras.config.backend() == "jax":
        # The pipeline distributes each batch to the processes itself.
        layout = keras.distribution.DataParallel(auto_shard_dataset=False)
        devices = Devices(layout.num_model_replicas, layout.scope, layout.scope)
    else:
        if precision == "mixed_float16":
            raise UserError(
                "`--precision` must not be mixed_float16 with `--strategy=mirrored`, where Keras "
                "would scale the loss of each replica separately. Use mixed_bfloat16, which needs "
                "no scaling"
            )
        strategy = _mirrored()
        devices = Devices(strategy.num_replicas_in_sync, strategy.scope)
    if batch_size % devices.replicas:
        raise UserError(
            "`--batch_size` must be a multiple of the number of devices, "
            f"{devices.replicas}. Received: {batch_size}"
        )
    return devices


def _mirrored() -> tf.distribute.Strategy:
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    # NCCL supports GPUs only; without this TensorFlow warns and replaces it.
    reduction = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
