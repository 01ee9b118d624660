"""The papers' recipe: poly learning rate, Nesterov momentum, their L2, cross-entropy."""

import keras

from kseg.layers import KSAC, Deconvolution


def compile_model(
    model: keras.Model,
    *,
    total_steps: int,
    learning_rate: float,
    learning_rate_power: float,
    end_learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    batch_norm_momentum: float,
    ignore_label: int,
) -> None:
    """Compiles a segmentation network for `fit` on (images, labels at the images' size).

    Args:
        model: Gives logits `[batch, height, width, num_classes]`.
        total_steps: Steps of the whole run; the learning rate is `end_learning_rate` after them.
        learning_rate: At step 0.
        learning_rate_power: Exponent of `(1 - step / total_steps)`; .9 in DeepLab.
        end_learning_rate: At the end; 0 in DeepLab.
        momentum: .9 in all five papers that state one.
        nesterov: Nesterov's form, as LKSPP trains.
        weight_decay: See `add_weight_decay`.
        batch_norm_momentum: Share of the old moving statistics kept at a step.
        ignore_label: Label without loss; the loss is the mean over the other pixels of the batch,
            0 if there is none.
    """
    add_weight_decay(model, weight_decay)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
    schedule = keras.optimizers.schedules.PolynomialDecay(
        learning_rate, total_steps, end_learning_rate, power=learning_rate_power
    )
    model.compile(
        optimizer=keras.optimizers.SGD(
            schedule,
            momentum=momentum,
            nesterov=nesterov,
            name="sgd",  # not numbered: checkpoints go by the paths of its variables
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=ignore_label
        ),
        # XLA runs convolutions several times slower on CPU, and breaks MirroredStrategy.
        jit_compile=False,
    )
    # Its variables are needed before the first step, to be restored.
    model.optimizer.build(model.trainable_variables)


def add_weight_decay(model: keras.Model, weight_decay: float) -> None:
    """Adds the papers' L2: `weight_decay * w` in the gradient of every convolution kernel.

    Depthwise kernels, batch normalisation and biases are left alone, as in the official code.
    Keras' `SGD(weight_decay=)` is another thing: it is decoupled from the momentum and, at the same
    number, about ten times weaker. Its `L2(c)` is `c * sum(w ** 2)`, hence the half. It is set on
    the kernels after the fact, so that a network is built without knowing how it will be trained.
    """
    if not weight_decay:
        return
    for layer in model._flatten_layers():
        # DepthwiseConv2D is no subclass of Conv2D.
        if isinstance(layer, (keras.layers.Conv2D, KSAC, Deconvolution)):
            layer.kernel.regularizer = keras.regularizers.L2(weight_decay / 2)
