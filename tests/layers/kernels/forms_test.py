"""The rule that chooses the forms of the kernels, and the facts that it is given."""

import threading

import keras
import pytest

from kseg.layers.kernels import forms
from kseg.layers.kernels.forms import Forms, Situation, rule

NONE = Forms(
    leaves_out_rim=False,
    one_product=False,
    sums_in_float32=False,
    float32_inputs=False,
    float32_products=False,
    compiles_itself=False,
    depthwise_by_taps=False,
    sums_rows_first=False,
    rows_as_columns=False,
)

ON_GPU = {"one_product", "sums_rows_first"}


def names(chosen):
    """Returns the names of the forms that are chosen."""
    return {name for name in vars(NONE) if getattr(chosen, name)}


@pytest.mark.parametrize(
    ("situation", "dtype", "training", "expected"),
    [
        # TensorFlow on a CPU: inference, training, half precision, compiled.
        (("tensorflow", "CPU"), "float32", False, {"leaves_out_rim"}),
        (("tensorflow", "CPU"), "float32", True, {"leaves_out_rim", "rows_as_columns"}),
        (("tensorflow", "CPU"), "bfloat16", False, {"leaves_out_rim", "sums_in_float32"}),
        (
            ("tensorflow", "CPU", True), "float16", True,
            {
                "leaves_out_rim", "sums_in_float32", "float32_products", "rows_as_columns",
                "depthwise_by_taps",
            },
        ),
        (
            ("tensorflow", "CPU", True), "float16", False,
            {"leaves_out_rim", "sums_in_float32", "float32_products", "depthwise_by_taps"},
        ),
        (("tensorflow", "CPU", False, 2), "float32", False, {"leaves_out_rim"}),
        # TensorFlow on a CPU whose products in bfloat16 are truncated.
        (
            ("tensorflow", "CPU", False, 1, False, True), "bfloat16", False,
            {"leaves_out_rim", "sums_in_float32", "float32_inputs"},
        ),
        (
            ("tensorflow", "CPU", True, 1, False, True), "bfloat16", False,
            {"leaves_out_rim", "sums_in_float32", "float32_products", "depthwise_by_taps"},
        ),
        (
            ("tensorflow", "CPU", False, 1, False, True), "float16", False,
            {"leaves_out_rim", "sums_in_float32"},
        ),
        # TensorFlow on a GPU: alone, compiled, in a replica, in a deterministic replica.
        (("tensorflow", "GPU"), "float32", True, ON_GPU),
        (("tensorflow", "GPU"), "bfloat16", True, {*ON_GPU, "sums_in_float32"}),
        (
            ("tensorflow", "GPU", True), "bfloat16", True,
            {*ON_GPU, "sums_in_float32", "float32_products", "depthwise_by_taps"},
        ),
        (
            ("tensorflow", "GPU", True), "bfloat16", False,
            {*ON_GPU, "sums_in_float32", "float32_products", "depthwise_by_taps"},
        ),
        (("tensorflow", "GPU", False, 2), "float32", True, {*ON_GPU, "compiles_itself"}),
        (
            ("tensorflow", "GPU", False, 2), "bfloat16", True,
            {*ON_GPU, "compiles_itself", "sums_in_float32", "float32_products"},
        ),
        (("tensorflow", "GPU", True, 2), "float32", True, {*ON_GPU, "depthwise_by_taps"}),
        (("tensorflow", "GPU", False, 2, True), "bfloat16", True, {*ON_GPU, "sums_in_float32"}),
        # The other backends do not compile kernels themselves.
        (("jax", "CPU", True), "bfloat16", True,
         {"leaves_out_rim", "sums_in_float32", "float32_products", "depthwise_by_taps"}),
        (("jax", "GPU", True), "float32", True, {*ON_GPU, "depthwise_by_taps"}),
        (("torch", "GPU", False), "bfloat16", True, {*ON_GPU, "sums_in_float32"}),
    ],
)  # fmt: skip
def test_the_rule(situation, dtype, training, expected):
    assert names(rule(Situation(*situation), dtype, training)) == expected


def test_the_situation_on_this_machine():
    found = forms._situation()
    assert found.backend == keras.config.backend()
    assert found.replicas == 1 and not found.deterministic
    assert found.xla == (found.backend == "jax")


def test_products_that_are_cut_off_are_recognised():
    tf = tensorflow()
    found = forms._products_are_truncated()
    # In float32 the sums of these small integers are exact.
    left = tf.random.stateless_uniform((256, 256), (1, 2), -9, 9, "int32")
    exact = tf.matmul(tf.cast(left, "float32"), tf.cast(left, "float32"))
    product = tf.matmul(tf.cast(left, "bfloat16"), tf.cast(left, "bfloat16"))
    rounded = tf.cast(exact, "bfloat16")
    assert bool(tf.reduce_all(product == rounded)) != found
    assert bool(tf.reduce_all(tf.abs(tf.cast(product, "float32")) <= tf.abs(exact))) == found


def test_functions_that_xla_compiles_are_recognised_while_they_are_traced():
    tf = tensorflow()
    seen = []

    def look(x):
        seen.append(forms._situation().xla)
        return x + 1

    def look_inside(x):
        return tf.cond(x > 0, lambda: look(x), lambda: x)

    tf.function(look)(1)
    tf.function(look, jit_compile=True)(1)
    tf.function(tf.function(look), jit_compile=True)(1)
    tf.function(look_inside, jit_compile=True)(tf.constant(1))
    tf.function(tf.function(look, jit_compile=True))(1)
    look(1)
    assert seen == [False, True, True, True, True, False]


def test_replicas_count_inside_a_replica_only():
    tf = tensorflow()
    strategy = tf.distribute.MirroredStrategy(["cpu:0"])
    with strategy.scope():
        assert forms._situation().replicas == 1  # Where a network is built.
    replicas = []
    strategy.run(lambda: replicas.append(forms._situation().replicas))
    assert replicas == [strategy.num_replicas_in_sync]


def test_assumptions_hold_in_all_threads_until_the_end():
    seen = []

    def look():
        seen.append(names(forms.choose("bfloat16", True)))

    before = forms.choose("bfloat16", True)
    with forms.assumed(backend="tensorflow", device="GPU", xla=False, replicas=2):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        with forms.assumed(device="CPU", truncates=False):
            look()
        look()
    assert seen == [
        {*ON_GPU, "compiles_itself", "sums_in_float32", "float32_products"},
        {"leaves_out_rim", "sums_in_float32", "rows_as_columns"},
        {*ON_GPU, "compiles_itself", "sums_in_float32", "float32_products"},
    ]
    assert forms.choose("bfloat16", True) == before


def tensorflow():
    """Returns TensorFlow, or skips on other backends."""
    if keras.config.backend() != "tensorflow":
        pytest.skip("needs TensorFlow")
    import tensorflow as tf

    return tf
