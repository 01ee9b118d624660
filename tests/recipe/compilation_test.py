"""Tests of the compilation of models, against NumPy where it is arithmetic."""

import keras
import numpy as np
import pytest

from kseg.layers import KSAC, Conv2DTranspose
from kseg.models import CONTEXTS
from kseg.recipe.compilation import compile_model, freeze_batch_norms
from kseg.recipe.schedules import learning_rates

RECIPE = {
    "learning_rate": learning_rates(0.1, schedule="poly", total_steps=10, steps_per_epoch=5),
    "momentum": 0.9, "nesterov": True, "weight_decay": 0.0, "batch_norm_momentum": 0.8,
    "ignore_label": 255,
}  # fmt: skip


def linear_model(**options):
    """Returns a compiled model of one 1x1 convolution with a bias."""
    images = keras.Input((None, None, 3))
    model = keras.Model(images, keras.layers.Conv2D(2, 1, name="logits")(images))
    compile_model(model, **RECIPE | options)
    return model


def cross_entropy_gradients(images, labels, kernel, bias):
    """Returns the gradients of the mean cross-entropy over pixels with a label other than 255."""
    valid = labels != 255
    pixels, classes = images[valid], labels[valid].astype(int)
    logits = pixels @ kernel + bias
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    error = (probabilities - np.eye(2)[classes]) / len(classes)
    return pixels.T @ error, error.sum(axis=0)


@pytest.mark.parametrize("nesterov", [True, False])
def test_two_steps_equal_numpy_with_l2_in_the_gradient(nesterov):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, 4, 3)).astype("float32")
    labels = rng.choice([0, 1, 255], (2, 3, 4)).astype("uint8")
    model = linear_model(weight_decay=0.5, nesterov=nesterov)
    kernel, bias = (weight.astype("float64") for weight in model.get_weights())
    kernel, velocities = kernel[0, 0], [0.0, 0.0]
    for step in range(2):
        model.train_on_batch(images, labels)
        rate = 0.1 * (1 - step / 10) ** 0.9
        gradients = list(cross_entropy_gradients(images, labels, kernel, bias))
        gradients[0] = gradients[0] + 0.5 * kernel  # L2 of the kernel, none of the bias.
        weights = [kernel, bias]
        for i, gradient in enumerate(gradients):
            velocities[i] = 0.9 * velocities[i] - rate * gradient
            weights[i] = weights[i] + (
                0.9 * velocities[i] - rate * gradient if nesterov else velocities[i]
            )
        kernel, bias = weights
    np.testing.assert_allclose(model.get_weights()[0][0, 0], kernel, rtol=1e-5)
    np.testing.assert_allclose(model.get_weights()[1], bias, rtol=1e-5, atol=1e-7)


def test_l2_applies_to_convolution_kernels_and_the_shared_kernel_only():
    images = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(images)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(images, KSAC(4, dilation_rates=(1,), name="context")(x))
    compile_model(model, **RECIPE | {"weight_decay": 0.25})
    decayed = {v.path for v in model.trainable_variables if v.regularizer is not None}
    assert decayed == {
        "conv/kernel",
        "context/kernel",
        "context/image_pooling/convolution/kernel",
        "context/pointwise/convolution/kernel",
        "context/project/convolution/kernel",
    }
    kernels = [v for v in model.trainable_variables if v.path in decayed]
    penalty = sum(0.125 * np.sum(np.square(v.numpy(), dtype="float64")) for v in kernels)
    assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-5)


@pytest.mark.parametrize("name", [*CONTEXTS, "upsampling"])
def test_l2_applies_to_all_kernels_of_a_module_except_depthwise_ones(name):
    images = keras.Input((9, 9, 8))
    if name == "upsampling":
        outputs = Conv2DTranspose(name="upsampling")([images, keras.layers.UpSampling2D()(images)])
    else:
        outputs = CONTEXTS[name](4, name="context")(images)
    model = keras.Model(images, outputs)
    compile_model(model, **RECIPE | {"weight_decay": 0.25})
    decayed = {v.path for v in model.trainable_variables if v.regularizer is not None}
    kernels = {v.path for v in model.trainable_variables if len(v.shape) == 4}
    assert decayed == {path for path in kernels if "depthwise" not in path}
    assert decayed


class Scale(keras.layers.Layer):
    """A layer that declares one of its two variables as a kernel with weight decay."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1],))
        self.offset = self.add_weight(name="offset", shape=(input_shape[-1],))

    @property
    def decayed_kernels(self):
        return [self.kernel]

    def call(self, inputs):
        return inputs * self.kernel + self.offset


def test_l2_applies_to_the_kernels_that_a_layer_declares():
    images = keras.Input((9, 9, 3))
    layer = Scale()
    model = keras.Model(images, layer(images))
    compile_model(model, **RECIPE | {"weight_decay": 0.25})
    assert layer.kernel.regularizer is not None
    assert layer.offset.regularizer is None


def test_a_batch_without_labelled_pixels_changes_no_weight():
    model = linear_model()
    before = model.get_weights()
    loss = model.train_on_batch(np.ones((2, 3, 3, 3)), np.full((2, 3, 3), 255, "uint8"))
    assert float(np.ravel(loss)[0]) == 0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_batch_norm_momentum_is_set_in_every_layer():
    images = keras.Input((9, 9, 3))
    model = keras.Model(images, KSAC(4, dilation_rates=(1, 2))(images))
    compile_model(model, **RECIPE)
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 5
    assert {layer.momentum for layer in norms} == {0.8}


@pytest.mark.parametrize("replicas", [1, 2])
def test_batch_statistics_are_computed_over_all_replicas_of_tensorflow(replicas):
    """On JAX a batch is one array over all devices, so that its statistics are over all of it."""
    images = keras.Input((9, 9, 3))
    model = keras.Model(images, KSAC(4, dilation_rates=(1,))(images))
    compile_model(model, **RECIPE, replicas=replicas)
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    several = replicas > 1 and keras.config.backend() == "tensorflow"
    assert {layer.synchronized for layer in norms} == {several}


def test_gradient_is_clipped_by_its_norm_over_all_variables():
    images = np.ones((2, 3, 3, 3), "float32")
    labels = np.ones((2, 3, 3), "uint8")
    distances = []
    for clip_norm in (0.0, 0.001):
        model = linear_model(clip_norm=clip_norm, momentum=0.0, nesterov=False)
        # With equal logits the gradient is large, whatever the random weights were.
        model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
        before = model.get_weights()
        model.train_on_batch(images, labels)
        squares = [np.sum((a - b) ** 2) for a, b in zip(before, model.get_weights(), strict=True)]
        distances.append(float(np.sqrt(sum(squares))))
    assert distances[1] == pytest.approx(0.1 * 0.001, rel=1e-3)
    assert distances[0] > 100 * distances[1]


def test_named_losses_are_added():
    images = np.zeros((2, 3, 3, 3), "float32")
    labels = np.array([0, 1] * 9, "uint8").reshape(2, 3, 3)
    values = {}
    for losses in (("cross_entropy",), ("dice",), ("cross_entropy", "dice")):
        model = linear_model(losses=losses)
        values[losses] = float(np.ravel(model.train_on_batch(images, labels))[0])
    total = values["cross_entropy",] + values["dice",]
    assert values["cross_entropy", "dice"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("trained_before", [False, True])
def test_frozen_batch_norms_keep_their_statistics_and_weights(trained_before):
    images = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(images, keras.layers.Conv2D(2, 1, name="logits")(x))
    compile_model(model, **RECIPE)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(4, 9, 9, 3)).astype("float32"), rng.integers(0, 2, (4, 7, 7))
    if trained_before:
        if keras.config.backend() == "jax":
            pytest.skip("on JAX batch norms can be frozen only before compilation")
        model.fit(*batch, verbose=0)
    freeze_batch_norms(model)
    if not trained_before:
        compile_model(model, **RECIPE)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.weights}
    model.fit(*batch, verbose=0)
    for variable in model.weights:
        same = np.array_equal(before[variable.path], keras.ops.convert_to_numpy(variable))
        assert same == variable.path.startswith("norm/"), variable.path


def test_loss_of_auxiliary_logits_is_weighted():
    images = keras.Input((None, None, 3))
    outputs = [keras.layers.Conv2D(2, 1, name=name)(images) for name in ("logits", "auxiliary")]
    labels = np.array([0, 1] * 9, "uint8").reshape(2, 3, 3)
    weights = np.ones((2, 3, 3), "float32")
    values = []
    for auxiliary_weight in (0.0, 0.4, 1.0):
        model = keras.Model(images, outputs)
        compile_model(model, **RECIPE, auxiliary_weight=auxiliary_weight)
        loss = model.evaluate(
            np.zeros((2, 3, 3, 3), "float32"), (labels, labels), verbose=0,
            sample_weight=(weights, weights), return_dict=True,
        )["loss"]  # fmt: skip
        values.append(loss)
    # On black images all logits are equal, so each loss is log 2.
    np.testing.assert_allclose(values, np.log(2) * np.array([1.0, 1.4, 2.0]), rtol=1e-5)
