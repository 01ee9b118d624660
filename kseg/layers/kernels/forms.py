"""The one place that chooses the form of a kernel: by device, dtype, XLA and number of replicas.

Measured on one H200 in bfloat16, at 16x33x33x2048 -> 256, in ms, forward and in both passes:

    KSAC's convolution by taps, rates 1 6 12 18 24, JAX                     0.320   0.830
    the same, TensorFlow                                                    1.73    4.09
    the same, TensorFlow, the whole function compiled by XLA                0.324   0.949
    the same, TensorFlow, the convolution compiled by itself (*)            0.391   1.07
    rates 6 12 18, JAX, without the rim that no rate reads                  0.553   1.06
    one plain 3x3 convolution of the backend, JAX                           0.255   0.736
    averages over 27x27, TensorFlow (*)                                     0.388   0.707
    the same, compiled by XLA (*)                                           0.273   0.506
    depthwise line 1x16, the backend's convolution, TensorFlow (*)          1.08    4.00
    the same, rows as columns (*)                                           1.07   16.6
    the same, the backend's convolution compiled by XLA (*)                 2.68    7.05

The rows with (*) are from another run, while other programs compiled on the same machine. In that
run the second row was 1.81 and 4.00, and the third 0.374 and 0.967. "Compiled for an H200" means
that XLA compiled a program for the card without having one; `experiments/benchmarks.md` has the
kernels and bytes of whole steps. What follows from the table, from such programs, and from
calculations with the card's 4.8 TB/s and 790 TFLOP/s:

- `leaves_out_rim`: on a GPU three rates without the rim take longer than five rates with it. By
  calculation the copies of eight parts of the features take longer there than the products that
  they save, unless the smallest rate is more than half the map. On a CPU the products cost most.
- `one_product`: on a GPU one matrix product computes those of all nine taps. Compiled for an H200,
  five rates are 3 kernels that move 309 MB in place of 12 that move 923 MB, and in both passes 8
  (963 MB) in place of 17 (1,577 MB). The measurements above are of nine products. On a CPU the
  taps are products of different parts of the map.
- `compiles_itself`: without XLA the additions are one kernel for each shift, which makes the
  convolution four to five times slower. Keras cannot compile the step of several replicas, so that
  the convolution compiles itself there, and so do the averages. The depthwise convolutions keep
  TensorFlow's own kernels.
- `sums_in_float32`: products that are rounded to half precision once and added in float32 have
  the square root of 2 times the error of a convolution, which rounds its result only; sums in half
  precision had 2.2 to 2.5 times.
- `float32_inputs`: TensorFlow's own CPU kernel for products in bfloat16 computes them in float32
  and truncates them, which gives twice the error of rounding and makes all values smaller.
  oneDNN's kernel, on processors with AVX-512, rounds. Where products are truncated, the inputs are
  cast to float32 instead, at the same cost: 0.96 of the time forward and 1.09 in both passes, on
  two cores with AVX2, at 2x33x33x512 -> 9x128.
- `float32_products`: products that stay in float32 until they are added have the error of the
  convolution. Only XLA can compute them. They double the bytes of the products: compiled for an
  H200, five rates move 470 MB in place of 309, by calculation 0.03 ms.
- `depthwise_by_taps`: XLA's depthwise convolution is slow. On two CPU cores a sum over the taps is
  12 to 56 times faster, and 1.9 to 10 times in both passes (3x3 at three sizes, lines of 16; the
  table is in `experiments/benchmarks.md`). On a GPU it was not measured. By calculation the line
  above takes 0.3 ms forward in place of 2.68: KSAC's additions, which are a third as many, need
  about 0.1 ms. Nothing is known of TPUs, which keep the convolution.
- `sums_rows_first`: XLA sums a map on a GPU in two kernels. Where the first one sums over rows
  only, those of all taps share the second one: 6 kernels in place of 15 for the gradient of a 3x3
  kernel at 16x33x33x728, compiled for an H200. On two CPU cores this form takes 1.2 to 3 times as
  long.
- `rows_as_columns`: TensorFlow's CPU kernel for the gradient of a depthwise line is slow along the
  width. On the H200, rows viewed as columns took four times as long in both passes.
- `LARGEST_POOLED_WINDOW`: on a CPU the pooling kernel of the backend trains faster up to windows of
  5x5 (`average_pool`), and on a GPU no window was compared.
- `MOST_TAPS`: with more taps a depthwise sum is hardly faster and takes long to compile: on two
  cores, with 64 channels, 2.1 s at 8x8 and 7.4 s at 16x16.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import keras

LARGEST_POOLED_WINDOW = 5  # Larger averages are products with band matrices.
MOST_TAPS = 32  # Larger depthwise kernels are left to the backend.
_HALF = ("bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Situation:
    """Where a kernel is computed.

    Attributes:
        backend: Name of Keras' backend.
        device: "CPU", "GPU" or "TPU".
        xla: Whether XLA compiles the function that is being traced. JAX always uses XLA.
        replicas: Number of replicas of the strategy in one of whose replicas the kernel is; 1
            without a strategy, and where a network is built or exported.
        deterministic: Whether every run must give the same bits, for which Keras does not use XLA.
        truncates: Whether the CPU truncates matrix products in bfloat16 instead of rounding them.
    """

    backend: str
    device: str
    xla: bool = False
    replicas: int = 1
    deterministic: bool = False
    truncates: bool = False


@dataclasses.dataclass(frozen=True)
class Forms:
    """The forms of the kernels; the docstring of the module has the reasons.

    Attributes:
        leaves_out_rim: Whether an atrous convolution computes no products of pixels that no rate
            reads.
        one_product: Whether it computes the products of all taps as one.
        sums_in_float32: Whether it adds its products in float32.
        float32_inputs: Whether the inputs of matrix products are cast to float32 first.
        float32_products: Whether an atrous convolution keeps the products of half-precision
            features in float32 until it adds them.
        compiles_itself: Whether an atrous convolution or an average is compiled by XLA in a graph
            that is not.
        depthwise_by_taps: Whether a depthwise convolution is computed as a sum over its taps.
        sums_rows_first: Whether the gradient of its kernel is summed over the rows first.
        rows_as_columns: Whether a depthwise line along the width is computed on the rows of the
            map, each viewed as a column.
    """

    leaves_out_rim: bool
    one_product: bool
    sums_in_float32: bool
    float32_inputs: bool
    float32_products: bool
    compiles_itself: bool
    depthwise_by_taps: bool
    sums_rows_first: bool
    rows_as_columns: bool


def rule(situation: Situation, dtype: str, training: bool) -> Forms:
    """Returns the forms for a situation.

    Args:
        situation: Where the kernel is computed.
        dtype: Name of the dtype of features and kernel.
        training: Whether gradients will be computed.
    """
    on_tensorflow = situation.backend == "tensorflow"
    half = dtype in _HALF
    compiles_itself = (
        on_tensorflow
        and situation.device == "GPU"
        and situation.replicas > 1
        and not (situation.xla or situation.deterministic)
    )
    return Forms(
        leaves_out_rim=situation.device == "CPU",
        one_product=situation.device == "GPU",
        sums_in_float32=half,
        float32_inputs=(
            dtype == "bfloat16"
            and situation.device == "CPU"
            and situation.truncates
            and not situation.xla
        ),
        float32_products=half and (situation.xla or compiles_itself),
        compiles_itself=compiles_itself,
        depthwise_by_taps=situation.xla and situation.device in ("CPU", "GPU"),
        sums_rows_first=situation.device == "GPU",
        rows_as_columns=on_tensorflow and situation.device == "CPU" and training,
    )


def choose(dtype: Any, training: bool | None = False) -> Forms:
    """Returns the forms for the place where it is called.

    Args:
        dtype: Dtype of features and kernel.
        training: Whether gradients will be computed.
    """
    situation = dataclasses.replace(_situation(), **_assumptions)
    return rule(situation, keras.backend.standardize_dtype(dtype), bool(training))


# Not a context variable: a strategy traces its replicas in threads of its own.
_assumptions: dict[str, Any] = {}


@contextlib.contextmanager
def assumed(**facts: Any) -> Iterator[None]:
    """Lets `choose` assume facts of the situation, in all threads.

    Exports, which must not depend on the machine that writes them, and tests use it.

    Args:
        **facts: Attributes of `Situation` and their values.
    """
    former = dict(_assumptions)
    _assumptions.update(facts)
    try:
        yield
    finally:
        _assumptions.clear()
        _assumptions.update(former)


def _situation() -> Situation:
    backend = keras.config.backend()
    if backend == "torch":
        import torch

        return Situation(backend, "GPU" if torch.cuda.is_available() else "CPU")
    device = keras.distribution.list_devices()[0].partition(":")[0].upper()
    if backend == "jax":
        return Situation(backend, device, xla=True)
    return Situation(backend, device, **_in_tensorflow())


def is_deterministic() -> bool:
    """Returns whether TensorFlow must compute the same bits in every run."""
    if keras.config.backend() != "tensorflow":
        return False
    from tensorflow.python.framework.config import is_op_determinism_enabled  # Not public.

    return is_op_determinism_enabled()


def _in_tensorflow() -> dict[str, Any]:
    import tensorflow as tf

    # There are no public functions for these facts.
    from tensorflow.python.framework.ops import get_default_graph
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    strategy = tf.distribute.get_strategy()
    in_replica = not tf.distribute.in_cross_replica_context()
    return {
        # True while a call of `tf.function(jit_compile=True)` traces. Exports call nothing.
        "xla": GraphOrParentsInXlaContext(get_default_graph()),
        "replicas": strategy.num_replicas_in_sync if in_replica else 1,
        "deterministic": is_deterministic(),
        "truncates": _products_are_truncated(),
    }


@functools.cache
def _products_are_truncated() -> bool:
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU:0"):
        # Every product is 1 + 3/512. Its neighbours in bfloat16 are 1, below, and 1 + 4/512.
        left = tf.constant([[1, 3 / 512] + 62 * [0]] * 64, "bfloat16")
        return bool(tf.reduce_all(tf.matmul(left, tf.ones_like(left)) == 1))
