"""The devices that a run trains on."""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import keras
import tensorflow as tf

from kseg.errors import UserError

# Arguments of `make_devices` that are fields of an experiment.
DEVICE_FIELDS = ("batch_size", "precision", "jit_compile", "deterministic")


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices over which a batch is split.

    Attributes:
        replicas: Number of devices, over all processes.
        building: Makes the context in which the network is built, compiled and restored.
        fitting: Makes the context in which `fit` is called.
        compiles: Whether XLA compiles the training step.
    """

    replicas: int = 1
    building: Callable[[], AbstractContextManager] = contextlib.nullcontext
    fitting: Callable[[], AbstractContextManager] = contextlib.nullcontext
    compiles: bool = False


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
    name: str,
    batch_size: int,
    precision: str = "float32",
    processes: int = 1,
    jit_compile: str = "auto",
    deterministic: bool = False,
) -> Devices:
    """Returns the devices of `--strategy`: `default` is one, `mirrored` all GPUs of the machine.

    Without a GPU, `mirrored` uses all logical CPUs, which is how it is tested. Several processes
    always use all devices of each. On TensorFlow, `fit` under the strategy does not support XLA or
    a scaled loss, which are refused here, and neither several steps in one call nor accumulated
    gradients, for which kseg has no flags. Dropout drops the same positions of each replica's part
    of a batch, since Keras gives all replicas the same seed.

    Args:
        name: One of `kseg.runs.rules.STRATEGIES`.
        batch_size: Images in a step, over all devices.
        precision: Precision of the training.
        processes: Number of processes that train together, on JAX; see `process_group`.
        jit_compile: One of `kseg.runs.rules.JIT_COMPILE`. "auto" compiles on JAX, and on TensorFlow
            on a GPU with one replica.
        deterministic: Whether every run gives the same bits, for which Keras leaves out XLA on
            TensorFlow.

    Raises:
        UserError: The batch cannot be split evenly over the replicas; the precision is float16, for
            which each replica would scale its loss separately; or XLA is asked for where Keras
            cannot use it.
    """
    if name == "default" and processes == 1:
        return Devices(compiles=_compiles(jit_compile, 1, deterministic))
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
    compiles = _compiles(jit_compile, devices.replicas, deterministic)
    return dataclasses.replace(devices, compiles=compiles)


def _compiles(jit_compile: str, replicas: int, deterministic: bool) -> bool:
    """Returns whether XLA compiles the training step."""
    if keras.config.backend() == "jax":
        return jit_compile != "false"
    obstacle = ""
    if replicas > 1:
        obstacle = "several replicas"
    elif deterministic:
        obstacle = "`--deterministic`"
    if jit_compile == "true" and obstacle:
        raise UserError(
            f"`--jit_compile` must be auto or false with {obstacle} on TensorFlow, where Keras "
            "does not compile the training step. Received: true"
        )
    if jit_compile == "auto":
        return not obstacle and bool(tf.config.list_physical_devices("GPU"))
    return jit_compile == "true"


def device_line(devices: Devices, precision: str) -> str:
    """Returns a text about the device, its memory, the precision and the compilation."""
    name, size = _gpu() or ("CPU", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    compiled = "not compiled"
    if devices.compiles:
        compiled = "compiled by XLA, which makes the first step slow"
    return f"{name} with {size / 2**30:.1f} GiB of memory, {precision}, {compiled}"


def _gpu() -> tuple[str, int] | None:
    """Returns the name and the usable bytes of memory of the first GPU; None without a GPU."""
    if keras.config.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform != "gpu":
            return None
        return device.device_kind, (device.memory_stats() or {}).get("bytes_limit", 0)
    if not tf.config.list_physical_devices("GPU"):
        return None
    from tensorflow.python.client import device_lib  # No public function tells the memory.

    for device in device_lib.list_local_devices():
        if device.device_type == "GPU":
            name = re.search(r"name: ([^,]+)", device.physical_device_desc)
            return name[1] if name else "GPU", device.memory_limit
    return None


def _mirrored() -> tf.distribute.Strategy:
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    # NCCL supports GPUs only, and only one device on each; without this TensorFlow warns of a CPU
    # and replaces it, and fails on a GPU that is divided into several devices.
    is_divided = len(devices) > len(tf.config.get_visible_devices(kind))
    reduction = tf.distribute.ReductionToOneDevice() if kind == "CPU" or is_divided else None
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
