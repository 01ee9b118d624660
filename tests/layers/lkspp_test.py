"""LKSPP: contract, example, laws, parameter counts, comparison with Keras' layers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers import LKSPP
from tests import layer_checks


def built(layer, channels=5):
    layer.build((None, None, None, channels))
    return layer


def kernel_weights(layer):
    """Number of weights of the convolutions with large kernels."""
    kernels = [
        variable
        for branch in layer.large_kernels
        for variable in branch.trainable_variables
        if len(variable.shape) == 4
    ]
    return sum(int(np.prod(kernel.shape)) for kernel in kernels)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_sizes": (1, 4, 9)},
        {"convolution": "dense", "kernel_sizes": (2,), "image_pooling": False},
        {"convolution": "plain", "kernel_sizes": (2, 3), "odd_kernels": False},
    ],
)
def test_fulfils_the_contract_of_a_layer(options, tmp_path):
    layer_checks.check_layer(
        lambda **kwargs: LKSPP(4, **options, **kwargs), [(4, 6, 5, 3)], (4, 6, 5, 4), tmp_path
    )


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    layer_checks.run_docstring_example(LKSPP)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("convolution", "weights"),
    [
        ("separable", lambda k, c, d: 4 * (k * c + c * d)),
        ("dense", lambda k, c, d: 4 * k * c * d),
        ("plain", lambda k, c, d: k * k * c * d),
    ],
)
@pytest.mark.parametrize("kernel_sizes", [(16,), (1, 4, 8, 16)])
def test_the_number_of_weights_follows_the_equations_of_the_paper(
    convolution, weights, kernel_sizes
):
    layer = built(LKSPP(64, kernel_sizes=kernel_sizes, convolution=convolution), 64)
    assert kernel_weights(layer) == sum(weights(size, 64, 64) for size in kernel_sizes)


@pytest.mark.one_backend
def test_features_of_2048_channels_need_4_85_million_weights():
    assert kernel_weights(built(LKSPP(), 2048)) == 4_852_224


@pytest.mark.one_backend
@pytest.mark.parametrize("convolution", LKSPP.CONVOLUTIONS)
def test_has_no_bias(convolution):
    layer = built(LKSPP(4, convolution=convolution))
    names = {variable.name for variable in layer.trainable_variables}
    assert names == {"kernel", "gamma", "beta"}


class PlainBranch:
    """A branch made of layers of Keras, with the weights of a branch of LKSPP."""

    def __init__(self, branch, features):
        self.paths = []
        for lines in (branch.column_first, branch.row_first):
            path, outputs = [], features
            for line in lines:
                kernel = line.depthwise.kernel
                convolution = keras.layers.SeparableConv2D(
                    line.pointwise.filters, kernel.shape[:2], padding="same", use_bias=False
                )
                norm = keras.layers.BatchNormalization(epsilon=1e-5)
                outputs = norm(convolution(outputs))
                pointwise = line.pointwise.convolution
                convolution.set_weights(line.depthwise.get_weights() + pointwise.get_weights())
                norm.set_weights(line.pointwise.norm.get_weights())
                path += [convolution, norm]
            self.paths.append(path)

    def __call__(self, features, training):
        total = 0
        for first, first_norm, second, second_norm in self.paths:
            path = first_norm(first(features), training=training)
            total = total + second_norm(second(path), training=training)
        return ops.relu(total)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(1, marks=pytest.mark.one_backend), 3,
        pytest.param(4, marks=pytest.mark.one_backend), 16,
    ],
)  # fmt: skip
def test_a_branch_equals_layers_of_keras_in_value_and_gradients(size, training):
    layer = built(LKSPP(4, kernel_sizes=(size,)))
    (branch,) = layer.large_kernels
    features = layer_checks.to_numpy(layer_checks.random_inputs([(2, 7, 6, 5)])[0])
    plain = PlainBranch(branch, features)
    found = branch_value_and_gradients(branch, features, kernels_of(branch), training)
    expected = branch_value_and_gradients(plain, features, kernels_of_plain(plain), training)
    assert len(found) == len(expected) == 1 + 1 + 2 * 2 * 2
    for actual, desired in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-4)


def kernels_of(branch):
    return [
        kernel
        for line in (*branch.column_first, *branch.row_first)
        for kernel in (line.depthwise.kernel, line.pointwise.convolution.kernel)
    ]


def kernels_of_plain(plain):
    return [
        kernel
        for first, _, second, _ in plain.paths
        for convolution in (first, second)
        for kernel in (convolution.depthwise_kernel, convolution.pointwise_kernel)
    ]


def branch_value_and_gradients(branch, features, variables, training):
    """Returns the output and the gradients of `sum(sin(output))` for features and variables."""

    def loss(outputs):
        return ops.sum(ops.sin(outputs))

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            features = tf.constant(features)
            tape.watch(features)
            outputs = branch(features, training=training)
            total = loss(outputs)
        gradients = tape.gradient(total, [features, *(variable.value for variable in variables)])
    elif keras.config.backend() == "jax":
        import jax

        @jax.jit
        def run(features, values):
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                return branch(features, training=training)

        values = [variable.value for variable in variables]
        outputs = run(features, values)
        gradients = jax.grad(lambda *given: loss(run(*given)), (0, 1))(features, values)
        gradients = [gradients[0], *gradients[1]]
    else:
        features = ops.convert_to_tensor(features).detach().requires_grad_()
        outputs = branch(features, training=training)
        loss(outputs).backward()
        gradients = [features.grad, *(variable.value.grad for variable in variables)]
    return [
        layer_checks.to_numpy(tensor.detach() if hasattr(tensor, "detach") else tensor)
        for tensor in (outputs, *gradients)
    ]


@pytest.mark.one_backend
def test_equals_its_branches_concatenated_in_order_and_projected():
    layer = LKSPP(4, kernel_sizes=(1, 4))
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    outputs = layer_checks.to_numpy(layer(features))
    pooled = layer.image_pooling(ops.mean(features, axis=(1, 2), keepdims=True))
    maps = [ops.tile(pooled, (1, 7, 6, 1)), *(branch(features) for branch in layer.large_kernels)]
    expected = layer.project(ops.concatenate(maps, axis=-1))
    np.testing.assert_allclose(outputs, layer_checks.to_numpy(expected), atol=1e-5)


# Offsets of the first and last pixel that the centre depends on. A path has one kernel for each
# axis, so a window of k pixels stays a window of k pixels.
@pytest.mark.one_backend
@pytest.mark.parametrize("convolution", LKSPP.CONVOLUTIONS)
@pytest.mark.parametrize(
    ("size", "odd_kernels", "first", "last"),
    [(1, False, 0, 0), (4, False, -1, 2), (5, False, -2, 2), (4, True, -2, 2), (1, True, 0, 0)],
)
def test_depends_on_exactly_the_pixels_of_its_window(convolution, size, odd_kernels, first, last):
    options = {"convolution": convolution, "odd_kernels": odd_kernels}
    (branch,) = built(LKSPP(2, kernel_sizes=(size,), **options), 1).large_kernels
    for variable in branch.trainable_variables:
        if variable.name == "kernel":
            # All positive, so that no products cancel and the ReLU changes nothing.
            variable.assign(ops.full(variable.shape, 0.1))
    features = np.ones((1, 15, 13, 1), "float32")
    _, (gradient,) = layer_checks.value_and_gradients(
        lambda tensor: [branch(tensor)[:, 7, 6]], features
    )
    expected = np.zeros((15, 13), bool)
    expected[7 + first : 7 + last + 1, 6 + first : 6 + last + 1] = True
    np.testing.assert_array_equal(gradient[0, :, :, 0] != 0, expected)


@pytest.mark.one_backend
def test_two_mirrored_paths_treat_rows_and_columns_equally():
    layer = built(LKSPP(4, kernel_sizes=(4,)))
    (branch,) = layer.large_kernels
    for line, mirrored in zip(branch.column_first, branch.row_first, strict=True):
        kernel = layer_checks.to_numpy(line.depthwise.kernel)
        mirrored.depthwise.kernel.assign(np.swapaxes(kernel, 0, 1))
        mirrored.pointwise.set_weights(line.pointwise.get_weights())
    (features,) = layer_checks.random_inputs([(2, 7, 7, 5)])
    outputs = layer_checks.to_numpy(branch(features))
    transposed = layer_checks.to_numpy(branch(ops.transpose(features, (0, 2, 1, 3))))
    np.testing.assert_allclose(np.swapaxes(transposed, 1, 2), outputs, atol=1e-5)


@pytest.mark.one_backend
def test_the_only_relu_follows_the_sum_of_the_paths():
    (branch,) = built(LKSPP(4, kernel_sizes=(3,), image_pooling=False)).large_kernels
    (features,) = layer_checks.random_inputs([(2, 7, 7, 5)])
    (first, second), (third, fourth) = branch.column_first, branch.row_first
    total = layer_checks.to_numpy(second(first(features)) + fourth(third(features)))
    assert np.min(total) < 0 < np.max(total)
    np.testing.assert_allclose(
        layer_checks.to_numpy(branch(features)), np.maximum(total, 0), atol=1e-6
    )


@pytest.mark.one_backend
def test_odd_kernels_makes_even_sizes_one_larger():
    layer = built(LKSPP(4, odd_kernels=True))
    sizes = [branch.column_first[0].depthwise.kernel.shape[0] for branch in layer.large_kernels]
    assert sizes == [1, 5, 9, 17]
    assert layer.kernel_sizes == (1, 4, 8, 16)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("filters", {"filters": 0}),
        *(("kernel_sizes", {"kernel_sizes": sizes}) for sizes in ((), (4, 0), (4, 4))),
        ("kernel_sizes`.*`odd_kernels", {"kernel_sizes": (4, 5), "odd_kernels": True}),
        ("odd_kernels", {"odd_kernels": 1}),
        ("convolution", {"convolution": "atrous"}),
        ("dropout_rate", {"dropout_rate": 1.0}),
        ("image_pooling", {"image_pooling": 0}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        LKSPP(**options)
