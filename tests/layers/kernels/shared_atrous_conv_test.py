"""Tests of shared_atrous_conv against one plain convolution for each rate."""

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from kseg.benchmark.plain import plain_shared_atrous_conv
from kseg.layers import KSAC, ConvNormAct
from kseg.layers.kernels import forms
from kseg.layers.kernels import shared_atrous_conv as module
from kseg.layers.kernels.shared_atrous_conv import shared_atrous_conv
from tests import layer_checks

# Rates that crop the products and rates that do not; inside the map, partly and fully beyond it.
CASES = [
    ((7, 5), (1,)),
    ((7, 5), (3,)),
    ((7, 5), (1, 2, 4)),
    ((7, 5), (2, 5, 30)),
    ((7, 5), (9, 40)),
    ((1, 4), (2, 3)),
    ((13, 13), (1, 6, 12, 18, 24)),
]


def features_and_kernel(size=(7, 5), channels=6, filters=4, batch=2):
    random = np.random.default_rng(0)
    features = random.normal(size=(batch, *size, channels)).astype("float32")
    return features, random.normal(size=(3, 3, channels, filters)).astype("float32")


@pytest.mark.parametrize(
    ("size", "rates", "device"),
    [*((*case, "CPU") for case in CASES), ((7, 5), (2, 5, 30), "GPU"), ((7, 5), (9, 40), "GPU")],
)
def test_equals_the_plain_form_in_value_and_gradients(size, rates, device):
    arrays = features_and_kernel(size)
    with forms.assumed(device=device):
        values, gradients = layer_checks.value_and_gradients(
            lambda *tensors: shared_atrous_conv(*tensors, rates), *arrays
        )
    plain_values, plain_gradients = layer_checks.value_and_gradients(
        lambda *tensors: plain_shared_atrous_conv(*tensors, rates), *arrays
    )
    assert len(values) == len(rates)
    for ours, plain in zip(values + gradients, plain_values + plain_gradients, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_gradients_are_computed_by_the_custom_backward_pass():
    original = module._gradients
    with mock.patch.object(
        module, "_gradients", lambda *inputs: tuple(-2 * g for g in original(*inputs))
    ):
        _, doubled = gradients_of_two_rates()
    _, gradients = gradients_of_two_rates()
    for ours, reference in zip(doubled, gradients, strict=True):
        np.testing.assert_allclose(ours, -2 * reference, rtol=1e-5, atol=1e-5)


def gradients_of_two_rates():
    return layer_checks.value_and_gradients(
        lambda *tensors: shared_atrous_conv(*tensors, (1, 2)), *features_and_kernel()
    )


@pytest.mark.parametrize("rates", [(1, 2), (2, 3, 5), (9,)])
def test_unknown_sizes_give_the_same_results(rates):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow graphs have unknown sizes")
    import tensorflow as tf

    def with_gradients(features, kernel):
        with tf.GradientTape() as tape:
            tape.watch((features, kernel))
            maps = shared_atrous_conv(features, kernel, rates)
            total = sum(tf.reduce_sum(tf.sin(rate_map)) for rate_map in maps)
        return maps, tape.gradient(total, (features, kernel))

    features, kernel = features_and_kernel()
    unknown = tf.TensorSpec([None, None, None, features.shape[-1]])
    graph = tf.function(with_gradients, input_signature=[unknown, tf.TensorSpec(kernel.shape)])
    for size in ((7, 5), (4, 11), (1, 1)):
        features, kernel = map(tf.constant, features_and_kernel(size))
        maps, gradients = graph(features, kernel)
        known_maps, known_gradients = with_gradients(features, kernel)
        for ours, known in zip([*maps, *gradients], [*known_maps, *known_gradients], strict=True):
            np.testing.assert_allclose(ours, known, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close_to_float32():
    arrays = features_and_kernel()
    exact = shared_atrous_conv(*map(ops.convert_to_tensor, arrays), (1, 2, 3))
    rounded = shared_atrous_conv(
        *(ops.convert_to_tensor(array, "bfloat16") for array in arrays), (1, 2, 3)
    )
    for ours, truth in zip(rounded, exact, strict=True):
        assert keras.backend.standardize_dtype(ours.dtype) == "bfloat16"
        truth = layer_checks.to_numpy(truth)
        ours = layer_checks.to_numpy(ops.cast(ours, "float32"))
        np.testing.assert_allclose(ours, truth, atol=0.02 * np.max(np.abs(truth)))


def multiplications(rates):
    features, kernel = features_and_kernel((13, 13))
    count = 0
    product = ops.matmul

    def counting(left, right):
        nonlocal count
        count += left.shape[0] * left.shape[1] * right.shape[1]
        return product(left, right)

    with mock.patch.object(ops, "matmul", counting):
        layer_checks.value_and_gradients(
            lambda *tensors: shared_atrous_conv(*tensors, rates), features, kernel
        )
    return count


def test_number_of_products_does_not_depend_on_the_number_of_rates():
    assert multiplications((1,)) > 0
    assert multiplications((1, 2, 3, 4, 5)) == multiplications((1,))


def test_the_rim_that_no_rate_reads_is_left_out_on_cpus_only():
    if keras.config.backend() != "tensorflow":
        pytest.skip("the rule and the code are the same on all backends")
    with forms.assumed(device="CPU"):
        assert multiplications((4, 5)) < multiplications((1,))
    with forms.assumed(device="GPU"):
        assert multiplications((4, 5)) == multiplications((1,))


RATES = (1, 2, 3, 5, 6)


def error_over_that_of_a_convolution(dtype, function):
    """Returns the RMS error of the maps of `RATES`, divided by that of tf.nn.conv2d."""
    import tensorflow as tf

    features, kernel = features_and_kernel((17, 17), channels=256, filters=64)
    rounded = [tf.cast(array, dtype) for array in (features, kernel / 48)]
    exact_features, exact_kernel = (tf.cast(tensor, tf.float64).numpy() for tensor in rounded)

    def exact(rate):
        padded = np.pad(exact_features, ((0, 0), (rate, rate), (rate, rate), (0, 0)))
        return sum(
            padded[:, row * rate : row * rate + 17, column * rate : column * rate + 17]
            @ exact_kernel[row, column]
            for row in range(3)
            for column in range(3)
        )

    truth = np.stack([exact(rate) for rate in RATES])

    def error(maps):
        return np.sqrt(np.mean(np.square(np.stack(maps) - truth)))

    convolutions = [tf.nn.conv2d(*rounded, 1, "SAME", dilations=rate) for rate in RATES]
    maps = function(*(ops.convert_to_tensor(array, dtype) for array in (features, kernel / 48)))
    return error([layer_checks.to_numpy(ops.cast(rate_map, "float32")) for rate_map in maps]) / (
        error([tf.cast(convolution, tf.float64).numpy() for convolution in convolutions])
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_half_precision_is_as_exact_as_promised(dtype, compiled, device):
    """Rounding nine products once gives an error of sqrt(2) times that of rounding their sum."""

    def maps(features, kernel):
        return shared_atrous_conv(features, kernel, RATES)

    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        maps = tf.function(maps, jit_compile=True) if compiled else maps
    elif compiled != (backend == "jax"):
        pytest.skip("JAX always uses XLA, torch never does")
    elif compiled:
        import jax

        maps = jax.jit(maps)
    with forms.assumed(device=device):  # Which decides the form.
        ratio = error_over_that_of_a_convolution(dtype, maps)
    assert ratio < (1.2 if compiled else 1.45), ratio


@pytest.mark.parametrize("compiled", [False, True])
def test_only_compiled_functions_have_products_in_float32(compiled):
    if keras.config.backend() != "tensorflow":
        pytest.skip("JAX always compiles, torch never does")
    inputs = keras.Input((9, 9, 8))
    x = ConvNormAct(8, kernel_size=3, dilation_rate=2, dtype="mixed_bfloat16")(inputs)
    x = KSAC(8, dilation_rates=(1, 2), image_pooling=False, dtype="mixed_bfloat16")(x)
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse", jit_compile=compiled)
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 8))
    product = module.float32_product
    with mock.patch.object(module, "float32_product", side_effect=product) as counted:
        model(images)
        assert counted.call_count == 0
        model.fit(images, images, verbose=0)
        assert counted.call_count == (18 if compiled else 0)
        counted.reset_mock()
        model.predict(images, verbose=0)
        assert counted.call_count == (18 if compiled else 0)


def with_gradients(rates):
    import tensorflow as tf

    def compute(features, kernel):
        with tf.GradientTape() as tape:
            tape.watch((features, kernel))
            maps = shared_atrous_conv(features, kernel, rates)
            total = sum(tf.reduce_sum(tf.sin(rate_map)) for rate_map in maps)
        return [*maps, *tape.gradient(total, (features, kernel))]

    return compute


REPLICA_ON_GPU = {"device": "GPU", "xla": False, "replicas": 2}


@pytest.mark.parametrize("size", [(7, 5), (None, None)], ids=["known", "unknown"])
def test_in_a_replica_on_a_gpu_it_compiles_itself_with_the_same_results(size):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow's kernels compile themselves")
    import tensorflow as tf

    rates = (2, 3, 30)
    specs = [tf.TensorSpec((None, *size, 6)), tf.TensorSpec((3, 3, 6, 4))]
    with forms.assumed(**REPLICA_ON_GPU):
        graph = tf.function(with_gradients(rates)).get_concrete_function(*specs)
    compiled = [
        operation
        for operation in graph.graph.get_operations()
        if operation.node_def.attr["_XlaMustCompile"].b
    ]
    # The maps, and two gradients: nothing that only a derived gradient would need.
    assert [len(operation.outputs) for operation in compiled] == [1, 2]
    for other in [(7, 5)] if size == (7, 5) else [(7, 5), (4, 11), (1, 1)]:
        features, kernel = map(tf.constant, features_and_kernel(other))
        expected = with_gradients(rates)(features, kernel)
        for ours, plain in zip(graph(features, kernel), expected, strict=True):
            np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_it_does_not_compile_itself_in_a_function_that_is_compiled(compiled):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow's kernels compile themselves")
    import tensorflow as tf

    features, kernel = map(tf.constant, features_and_kernel())
    run = module.run_compiled
    with (
        forms.assumed(device="GPU", replicas=2),
        mock.patch.object(module, "run_compiled", side_effect=run) as counted,
    ):
        found = tf.function(with_gradients((1, 2)), jit_compile=compiled)(features, kernel)
    assert counted.call_count == (0 if compiled else 2)
    for ours, plain in zip(found, with_gradients((1, 2))(features, kernel), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_dilation_then_subsampling_equals_subsampling_then_convolution():
    features, kernel = map(ops.convert_to_tensor, features_and_kernel((13, 10)))
    for rate in (2, 3, 6):
        (dilated,) = shared_atrous_conv(features, kernel, (rate,))
        (convolved,) = shared_atrous_conv(features[:, ::rate, ::rate], kernel, (1,))
        np.testing.assert_allclose(
            layer_checks.to_numpy(dilated)[:, ::rate, ::rate],
            layer_checks.to_numpy(convolved),
            rtol=1e-4,
            atol=1e-4,
        )


def test_a_rate_beyond_the_map_leaves_only_the_centre_tap():
    features, kernel = map(ops.convert_to_tensor, features_and_kernel((7, 5)))
    (outputs,) = shared_atrous_conv(features, kernel, (7,))
    pointwise = ops.matmul(features, kernel[1, 1])
    np.testing.assert_allclose(
        layer_checks.to_numpy(outputs), layer_checks.to_numpy(pointwise), rtol=1e-4, atol=1e-5
    )
