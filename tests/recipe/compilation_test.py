"""Tests of the compilation of models, against NumPy where it is arithmetic."""

import keras
import numpy as np
import pytest

from kseg.layers import KSAC, Conv2DTranspose
from kseg.models import CONTEXTS, Segmenter
from kseg.recipe.compilation import compile_model, freeze_batch_norms, train_backbone
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


def segmenter():
    """Returns a network whose backbone and head both have a batch normalisation."""
    keras.utils.set_random_seed(0)
    maps = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(maps)
    x = keras.layers.BatchNormalization(name="norm")(x)
    backbone = keras.Model(maps, keras.layers.Activation("softplus")(x), name="backbone")
    images = keras.Input((None, None, 3))
    x = keras.layers.BatchNormalization(name="head_norm")(backbone(images))
    return Segmenter(images, keras.layers.Conv2D(2, 1, name="logits")(x))


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 9, 9, 3)).astype("float32"), rng.integers(0, 2, (4, 7, 7))


def weights_of(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def is_of_backbone(path):
    return path.startswith(("conv/", "norm/"))


@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
def test_the_backbone_takes_the_step_of_a_lower_learning_rate_l2_included(clip_norm):
    after = {}
    for rate, factor in ((0.1, 1.0), (0.1, 0.25), (0.025, 1.0)):
        model = segmenter()
        options = {"learning_rate": rate, "weight_decay": 0.5, "clip_norm": clip_norm}
        compile_model(model, **RECIPE | options, backbone_learning_rate_factor=factor)
        model.fit(*batch(), verbose=0)
        after[rate, factor] = weights_of(model)
    for path, value in after[0.1, 0.25].items():
        expected = after[0.025 if is_of_backbone(path) else 0.1, 1.0][path]
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7, err_msg=path)
    assert np.abs(after[0.1, 1.0]["conv/kernel"] - after[0.1, 0.25]["conv/kernel"]).max() > 1e-4


def test_a_factor_of_1_needs_no_backbone_and_changes_no_optimizer():
    model = linear_model(backbone_learning_rate_factor=1.0)
    assert model.optimizer.learning_rate_factors == {}
    train_backbone(model, 1.0)
    with pytest.raises(AttributeError, match="backbone"):
        train_backbone(model, 0.5)


def test_a_frozen_backbone_stays_as_it_is_until_it_is_released():
    model = segmenter()
    compile_model(model, **RECIPE | {"weight_decay": 0.5}, backbone_learning_rate_factor=0.5)
    trained = [weight.path for weight in model.trainable_weights]
    train_backbone(model, 0)
    before = weights_of(model)
    for _ in range(2):
        model.fit(*batch(), verbose=0)
    after = weights_of(model)
    for path, value in after.items():
        assert np.array_equal(value, before[path]) == is_of_backbone(path), path
    assert [weight.path for weight in model.trainable_weights] == trained

    train_backbone(model, 0.5)
    assert len(model.optimizer.learning_rate_factors) == 6
    model.fit(*batch(), verbose=0)
    released = weights_of(model)
    assert not [path for path, value in released.items() if np.array_equal(value, after[path])]


def test_a_frozen_backbone_normalises_with_its_moving_statistics():
    """The first loss is that of a network whose backbone is called as in inference."""
    model = segmenter()
    compile_model(model, **RECIPE)
    train_backbone(model, 0)
    images, labels = batch()
    features = model.get_layer("backbone")(images, training=False)
    x = model.get_layer("head_norm")(features, training=True)
    logits = keras.ops.convert_to_numpy(model.get_layer("logits")(x)).reshape(-1, 2)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -logits[np.arange(len(logits)), labels.reshape(-1)].mean()
    loss = model.fit(images, labels, verbose=0).history["loss"][0]
    assert loss == pytest.approx(expected, rel=1e-4)


def test_batch_norms_that_are_frozen_stay_so_when_the_backbone_is_released():
    model = segmenter()
    freeze_batch_norms(model)
    compile_model(model, **RECIPE)
    train_backbone(model, 0)
    train_backbone(model, 1)
    before = weights_of(model)
    model.fit(*batch(), verbose=0)
    same = {
        path for path, value in weights_of(model).items() if np.array_equal(value, before[path])
    }
    assert same == {path for path in before if "norm/" in path}


def test_batch_norms_can_be_frozen_while_the_backbone_is():
    if keras.config.backend() == "jax":
        pytest.skip("on JAX batch norms can be frozen only before compilation")
    model = segmenter()
    compile_model(model, **RECIPE)
    train_backbone(model, 0)
    freeze_batch_norms(model)
    train_backbone(model, 1)
    assert {weight.path for weight in model.trainable_weights} == {
        "conv/kernel", "conv/bias", "logits/kernel", "logits/bias",
    }  # fmt: skip


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
