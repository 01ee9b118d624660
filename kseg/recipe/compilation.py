"""Compilation of a network for the training recipes of the papers.

Departure from the papers' code: Keras' SGD multiplies the gradient `g` by the learning rate before
it enters the velocity, `v = momentum * v - lr * g; w = w + v`. TensorFlow 1's `MomentumOptimizer`
(the official DeepLab, LKSPP) and torch's SGD (DFP) multiply the velocity instead, `v = momentum * v
+ g; w = w - lr * v`. The two are equal at a constant rate and differ while it changes. The ratio of
our step to theirs, at a constant gradient and a momentum of 0.9, is:

    poly over 30,000 steps      1.0003 at step 200, 1.0005 halfway, 1.0027 after nine tenths
    poly over 200 steps         1.08 halfway
    halving                     1.90 at the halving, 1.31 ten steps later
    linear over 30 epochs       1.90 at the start of the last epoch
    warm-up over 100 steps      0.56 at step 5, 0.82 at step 50

KSAC's first author trained with the Keras of TensorFlow 2, whose SGD is the same as ours.
"""

from collections.abc import Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from kseg.recipe.losses import LOSSES, CrossEntropy, SumOfLosses
from kseg.recipe.optimizer import SGD, inner_optimizer


def compile_model(
    model: keras.Model,
    *,
    learning_rate: float | LearningRateSchedule,
    momentum: float,
    nesterov: bool,
    clip_norm: float = 0.0,
    weight_decay: float,
    batch_norm_momentum: float,
    ignore_label: int,
    backbone_learning_rate_factor: float = 1.0,
    losses: Sequence[str] = ("cross_entropy",),
    class_weights: Sequence[float] = (),
    ohem_fraction: float = 1.0,
    auxiliary_weight: float = 0.4,
    replicas: int = 1,
    jit_compile: bool | None = None,
) -> None:
    """Compiles a segmentation network for `fit` on images, labels of the same size, and weights.

    Args:
        model: `keras.Model`. Its output is the logits `(batch, height, width, num_classes)`, or a
            list of these and auxiliary logits; then there must be labels and weights for each.
        learning_rate: Float, or a schedule, see `kseg.recipe.schedules.learning_rates`.
        momentum: Float. 0.9 in all five papers that state one.
        nesterov: Boolean. Whether to use Nesterov momentum, as LKSPP does.
        clip_norm: Float. Largest norm of the whole gradient. Defaults to 0, no clipping.
        weight_decay: Float. See `add_weight_decay`.
        batch_norm_momentum: Float. Fraction of the moving statistics that a step keeps.
        ignore_label: Integer. Label of the pixels without loss.
        backbone_learning_rate_factor: Float. See `train_backbone`. Defaults to 1.
        losses: Names of `kseg.recipe.losses.LOSSES`, which are added. Defaults to cross-entropy.
        class_weights: Numbers, one for each class, see `kseg.recipe.losses.CrossEntropy`. Defaults
            to `()`, all 1.
        ohem_fraction: Float. Fraction of hardest pixels kept, see
            `kseg.recipe.losses.CrossEntropy`. Defaults to 1, all.
        auxiliary_weight: Float. Weight of the loss of auxiliary logits. Defaults to 0.4 (PSPNet).
        replicas: Integer. Number of devices that a batch is split over; batch statistics are
            computed over all of them. Defaults to 1.
        jit_compile: Boolean. Whether XLA compiles the training step. Keras cannot do so under
            MirroredStrategy. Defaults to None: on JAX, which without it executes one operation at a
            time. TensorFlow's convolutions are several times slower with it on a CPU.
    """
    if jit_compile is None:
        jit_compile = keras.config.backend() == "jax"
    add_weight_decay(model, weight_decay)
    for norm in _batch_norms(model):
        norm.momentum = batch_norm_momentum
        # On JAX a batch is one array over all devices, and its statistics are over all of it.
        norm.synchronized = replicas > 1 and keras.config.backend() == "tensorflow"
    model.compile(
        optimizer=SGD(
            learning_rate,
            clip_norm=clip_norm,
            momentum=momentum,
            nesterov=nesterov,
            name="sgd",  # A fixed name, since checkpoints contain the paths of its variables.
        ),
        loss=[_loss(losses, ignore_label, class_weights, ohem_fraction) for _ in model.outputs],
        loss_weights=[1.0, *[auxiliary_weight] * (len(model.outputs) - 1)],
        jit_compile=jit_compile,
    )
    # A checkpoint is restored into the optimizer's variables before the first step.
    model.optimizer.build(model.trainable_variables)
    train_backbone(model, backbone_learning_rate_factor)


def train_backbone(model: keras.Model, factor: float) -> None:
    """Trains the backbone with its own learning rate, or not at all, from the next step on.

    All variables stay in the optimizer and in checkpoints, and the order of the trained variables
    stays the same, so that this is possible between two calls of `fit` on every backend.

    Args:
        model: A compiled `kseg.models.Segmenter`. Another compiled `keras.Model` is accepted only
            with a factor of 1.
        factor: Float >= 0 that multiplies the learning rate of the backbone, and with it the effect
            of the weight decay; see `kseg.recipe.optimizer.SGD`. With 0 the backbone stays as it
            is, the statistics of its batch normalisations included: these then compute as in
            inference.
    """
    factors = {}
    if factor != 1:
        paths = (weight.path for part in model.backbone for weight in part.weights)
        factors = dict.fromkeys(paths, float(factor))
    optimizer = inner_optimizer(model)
    if optimizer.learning_rate_factors == factors:
        return
    optimizer.learning_rate_factors = factors
    for norm in (norm for part in model.backbone for norm in _batch_norms(part)):
        trained = [weight for weight in norm.weights if weight.trainable]
        if trained:  # Otherwise `freeze_batch_norms` has frozen it.
            norm.trainable = factor > 0
            for weight in trained:
                weight.trainable = True
    model.train_function = None  # It was traced with other factors.


def freeze_batch_norms(model: keras.Model) -> None:
    """Freezes the statistics, scales and offsets of all batch normalisations.

    From the next step on, training computes them as inference does. Their variables remain in the
    optimizer and in checkpoints. On JAX this is possible only before the model is compiled, because
    the variables of an optimizer must be those that are trained.
    """
    # Those of a backbone that `train_backbone` holds still have variables that are trained.
    norms = [
        norm
        for norm in _batch_norms(model)
        if norm.trainable or any(weight.trainable for weight in norm.weights)
    ]
    for norm in norms:
        norm.trainable = False
        for weight in norm.weights:  # Keras leaves them as they are if the layer was frozen before.
            weight.trainable = False
    if norms:
        model.train_function = None  # It was traced while they were trainable.


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def add_weight_decay(model: keras.Model, weight_decay: float) -> None:
    """Adds the papers' L2: `weight_decay * w` in the gradient of every convolution kernel.

    The kernels are those of `keras.layers.Conv2D` and the variables that a layer lists in its
    property `decayed_kernels`. Depthwise kernels, batch normalisation and biases are not decayed,
    as in the official code. `SGD(weight_decay=)` of Keras differs: it is decoupled from the
    momentum, and about ten times weaker at the same number. `L2(c)` of Keras is `c * sum(w ** 2)`,
    hence the half. The regularizer is set on the kernels here, so that a network can be built
    without knowing how it will be trained.
    """
    if not weight_decay:
        return
    for layer in model._flatten_layers():
        for kernel in _decayed_kernels(layer):
            kernel.regularizer = keras.regularizers.L2(weight_decay / 2)


def _decayed_kernels(layer: keras.layers.Layer) -> list[keras.Variable]:
    if isinstance(layer, keras.layers.Conv2D):  # DepthwiseConv2D is not a subclass of it.
        return [layer.kernel]
    return getattr(layer, "decayed_kernels", [])


def _loss(names, ignore_label, class_weights, ohem_fraction) -> keras.losses.Loss:
    options = {"class_weights": tuple(class_weights) or None, "ohem_fraction": ohem_fraction}
    losses = [
        LOSSES[name](ignore_label=ignore_label, **(options if LOSSES[name] is CrossEntropy else {}))
        for name in names
    ]
    return losses[0] if len(losses) == 1 else SumOfLosses(losses)
