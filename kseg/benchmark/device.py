"""The device that is measured: its name, waiting for it, and its memory."""

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import keras
import tensorflow as tf

# What a user calls a precision -> the dtype policy of Keras.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def wait(result: object) -> None:
    """Returns when the device has computed a result.

    A call on a GPU, and on JAX on every device, returns as soon as the work is queued.

    Args:
        result: What the call returned, tensors in any structure.
    """
    if keras.config.backend() == "jax":
        import jax

        jax.block_until_ready(result)
    else:
        tf.test.experimental.sync_devices()


def name() -> str:
    """Returns the name of the GPU that is computed on, or that of the processor."""
    if not is_gpu():
        return processor()
    if keras.config.backend() == "jax":
        import jax

        return jax.local_devices()[0].device_kind
    gpu = tf.config.list_physical_devices("GPU")[0]
    return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")


def processor() -> str:
    """Returns the model of the processor and the number of cores, see `cores`."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"model name\s*: (.+)", text)
    return f"{model[1].strip() if model else 'CPU'}, {cores()} cores"


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_gpu() -> bool:
    """Returns whether the calls of the backend run on a GPU."""
    if keras.config.backend() == "jax":
        import jax

        return jax.local_devices()[0].platform == "gpu"
    return bool(tf.config.list_physical_devices("GPU"))


def versions() -> dict[str, str]:
    """Returns the versions of what computes."""
    packages = ("keras", "tensorflow" if keras.config.backend() == "tensorflow" else "jax", "numpy")
    found = {package: metadata.version(package) for package in packages}
    if is_gpu():
        if keras.config.backend() == "tensorflow":
            build = tf.sysconfig.get_build_info()
            found |= {"CUDA": build.get("cuda_version"), "cuDNN": build.get("cudnn_version")}
        found["driver"] = _driver()
    return {package: version for package, version in found.items() if version}


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (lines.strip().splitlines() or [""])[0]


class PeakMemory:
    """The largest memory of the GPU in use since the object was made.

    JAX cannot forget an earlier peak: what stays below the peak of the process so far is unknown.
    """

    def __init__(self):
        self._former = 0
        if keras.config.backend() == "jax":
            self._former = _peak_bytes()
        elif is_gpu():
            tf.config.experimental.reset_memory_stats("GPU:0")

    @property
    def mib(self) -> float | None:
        """The peak in MiB; None if it is unknown, as on CPUs."""
        peak = _peak_bytes()
        return peak / 2**20 if peak > self._former else None


def _peak_bytes() -> int:
    """Returns the largest number of bytes in use on the GPU; 0 on a CPU."""
    if not is_gpu():
        return 0
    if keras.config.backend() == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]
