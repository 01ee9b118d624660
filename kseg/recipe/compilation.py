"""The papers' recipes: learning rate, momentum, their L2, losses, batch normalisation."""

import keras

from kseg.layers import KSAC, Deconvolution
from kseg.recipe.losses import LOSSES, CrossEntropy, SumOfLosses
from kseg.recipe.optimizer import SGD
from kseg.recipe.schedules import SCHEDULES, WarmUp


def compile_model(
    model: keras.Model,
    *,
    total_steps: int,
    steps_per_epoch: int,
    learning_rate: float,
    schedule: str = "poly",
    learning_rate_power: float = 0.9,
    end_learning_rate: float = 0.0,
    halve_every: int = 0,
    warm_up_steps: int = 0,
    momentum: float,
    nesterov: bool,
    clip_norm: float = 0.0,
    weight_decay: float,
    batch_norm_momentum: float,
    ignore_label: int,
    losses: tuple[str, ...] = ("cross_entropy",),
    class_weights: tuple[float, ...] = (),
    ohem_fraction: float = 1.0,
    auxiliary_weight: float = 0.4,
    replicas: int = 1,
) -> None:
    """Compiles a segmentation network for `fit` on (images, labels at the images' size, weights).

    Args:
        model: Gives logits `[batch, height, width, num_classes]`, or a list of those and auxiliary
            ones; labels and weights then come once for each.
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of an epoch, for schedules that go by epochs.
        learning_rate: At step 0, or at the end of the warm-up.
        schedule: A name of `kseg.recipe.schedules.SCHEDULES`.
        learning_rate_power: poly: exponent of `(1 - step / total_steps)`; .9 in DeepLab.
        end_learning_rate: poly: at the end; 0 in DeepLab.
        halve_every: halving: steps between two halvings.
        warm_up_steps: Steps of a linear rise from 0 before the schedule begins; 0: none.
        momentum: .9 in all five papers that state one.
        nesterov: Nesterov's form, as LKSPP trains.
        clip_norm: Largest norm of the whole gradient; 0: not clipped.
        weight_decay: See `add_weight_decay`.
        batch_norm_momentum: Share of the old moving statistics kept at a step.
        ignore_label: Label without loss.
        losses: Names of `kseg.recipe.losses.LOSSES`, which are summed.
        class_weights: See `kseg.recipe.losses.CrossEntropy`; empty: all 1.
        ohem_fraction: See there.
        auxiliary_weight: What the loss of auxiliary logits counts; .4 in PSPNet.
        replicas: Over how many devices a batch is split; batch statistics are taken over all.
    """
    add_weight_decay(model, weight_decay)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
            # On JAX a batch is one array over all devices, and so are its statistics.
            layer.synchronized = replicas > 1 and keras.config.backend() == "tensorflow"
    rates = SCHEDULES[schedule](
        learning_rate,
        total_steps=max(total_steps - warm_up_steps, 1),
        steps_per_epoch=steps_per_epoch,
        power=learning_rate_power,
        end=end_learning_rate,
        every=halve_every,
    )
    if warm_up_steps:
        rates = WarmUp(rates, steps=warm_up_steps, learning_rate=learning_rate)
    model.compile(
        optimizer=SGD(
            rates,
            clip_norm=clip_norm,
            momentum=momentum,
            nesterov=nesterov,
            name="sgd",  # not numbered: checkpoints go by the paths of its variables
        ),
        loss=[_loss(losses, ignore_label, class_weights, ohem_fraction) for _ in model.outputs],
        loss_weights=[1.0, *[auxiliary_weight] * (len(model.outputs) - 1)],
        # XLA runs TensorFlow's convolutions several times slower on CPU, and breaks
        # MirroredStrategy. JAX without it runs operation by operation.
        jit_compile=keras.config.backend() == "jax",
    )
    # Its variables are needed before the first step, to be restored.
    model.optimizer.build(model.trainable_variables)


def freeze_batch_norms(model: keras.Model) -> None:
    """From the next step on batch normalisations keep their statistics, scale and shift.

    In `fit` they then compute what they do in inference. Their variables stay in the optimizer and
    in checkpoints. On JAX only before the model is compiled: there an optimizer's variables must be
    those that are trained.
    """
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in norms:
        layer.trainable = False
    if norms:
        model.train_function = None  # it was traced with them in training


def _loss(names, ignore_label, class_weights, ohem_fraction) -> keras.losses.Loss:
    options = {"class_weights": tuple(class_weights) or None, "ohem_fraction": ohem_fraction}
    losses = [
        LOSSES[name](ignore_label=ignore_label, **(options if LOSSES[name] is CrossEntropy else {}))
        for name in names
    ]
    return losses[0] if len(losses) == 1 else SumOfLosses(losses)


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
