"""Losses of the papers' recipes, on logits at the size of the labels, in `keras.ops` alone.

A loss is called as Keras calls it, with labels, logits and, where the pipeline makes them, pixel
weights. The mean over the labelled pixels of a batch needs their number; on several replicas that
must be the number in the global batch, which no replica knows. So `pixel_weights` puts it into
weights that are made with the batch, before it is split: the plain mean of weight times loss is
then the right one however the batch is split.
"""

import keras
from keras import ops


def pixel_weights(labels, ignore_label=255):
    """Weights under which a plain mean over all pixels is the mean over the labelled ones.

    Args:
        labels: Integer tensor `(batch, height, width)`, the global batch.
        ignore_label: Label of the pixels that count for nothing.

    Returns:
        float32 tensor of the same shape: 0 where ignored, else all pixels over labelled pixels; 0
        everywhere if none is labelled.
    """
    valid = ops.cast(ops.not_equal(labels, ignore_label), "float32")
    return valid / ops.maximum(ops.mean(valid), 1.0 / _count(valid))


class _PixelLoss(keras.losses.Loss):
    """A loss of labels and their weights; a subclass computes it as one number in `value`.

    A label that is neither a class nor `ignore_label` gives NaN, or an error of TensorFlow that
    names the label where its cross-entropy runs on a CPU.
    """

    def __init__(self, *, ignore_label, name):
        super().__init__(name=name)
        self.ignore_label = ignore_label

    def __call__(self, labels, logits, weights=None):
        if weights is None:
            weights = pixel_weights(labels, self.ignore_label)
        return super().__call__((labels, weights), logits)

    def call(self, truth, logits):
        labels, weights = ops.cast(truth[0], "int32"), ops.cast(truth[1], "float32")
        # Any class will do for an ignored pixel, which has weight 0.
        labels = ops.where(ops.equal(labels, self.ignore_label), 0, labels)
        value = self.value(labels, weights, ops.cast(logits, "float32"))
        is_class = ops.logical_and(labels >= 0, labels < logits.shape[-1])
        value = ops.where(ops.all(is_class), value, float("nan"))
        # Not a scalar: Keras divides those by no number of replicas, whose gradients are summed.
        return ops.reshape(value, (1,))

    def value(self, labels, weights, logits):
        """Returns the loss of int32 labels, float32 weights and float32 logits.

        Ignored pixels have label 0 and weight 0.
        """
        raise NotImplementedError

    def get_config(self):
        return {"name": self.name, "ignore_label": self.ignore_label}


@keras.saving.register_keras_serializable(package="kseg")
class CrossEntropy(_PixelLoss):
    """Softmax cross-entropy: the mean over the labelled pixels, 0 if there is none.

    Args:
        ignore_label: Integer. Label of the pixels that count for nothing. Defaults to 255 (VOC).
        class_weights: Tuple of numbers >= 0, one a class, by which a pixel of that class counts;
            the sum is still divided by the number of pixels (the official DeepLab code). Defaults
            to `None`, all 1.
        ohem_fraction: Number in (0, 1]. Share of the pixels that count, those of the highest loss
            (hard-pixel mining, `top_k_percent_pixels` of the official code); the sum is then
            divided by their number. Defaults to 1, all.

    Call arguments:
        labels: Integer tensor `(batch, height, width)`.
        logits: Float tensor `(batch, height, width, classes)`.
        weights: `None` or a float tensor of the shape of `labels`, see `pixel_weights`; with
            `ohem_fraction` below 1 only told apart from 0, and the hardest are sought in the
            pixels of one replica.

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution", 2018, and its code,
        `deeplab/utils/train_utils.py`. Computed in float32 whatever the logits.
    """

    def __init__(
        self, *, ignore_label=255, class_weights=None, ohem_fraction=1.0, name="cross_entropy"
    ):
        super().__init__(ignore_label=ignore_label, name=name)
        self.class_weights = None if class_weights is None else tuple(class_weights)
        if self.class_weights is not None:
            if not all(_is_number(weight) and weight >= 0 for weight in self.class_weights):
                raise ValueError(
                    f"`class_weights` must be numbers >= 0. Received: {class_weights!r}"
                )
        if not _is_number(ohem_fraction) or not 0 < ohem_fraction <= 1:
            raise ValueError(
                f"`ohem_fraction` must be a number in (0, 1]. Received: {ohem_fraction!r}"
            )
        self.ohem_fraction = float(ohem_fraction)

    def value(self, labels, weights, logits):
        classes = logits.shape[-1]
        losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        if self.class_weights is not None:
            if len(self.class_weights) != classes:
                raise ValueError(
                    f"`class_weights` must be one number for each of {classes} classes. "
                    f"Received: {len(self.class_weights)}"
                )
            losses = losses * ops.take(ops.convert_to_tensor(self.class_weights, "float32"), labels)
        if self.ohem_fraction == 1:
            return ops.mean(losses * weights)
        losses = ops.reshape(ops.where(weights > 0, losses, 0.0), (-1,))
        kept = ops.cast(ops.ceil(self.ohem_fraction * _count(losses)), "int32")
        # The loss of the last pixel that counts; those of the same loss count too.
        least = ops.flip(ops.sort(losses), 0)[kept - 1]
        hardest = ops.cast(ops.logical_and(losses >= least, losses > 0), "float32")
        return ops.sum(losses * hardest) / ops.maximum(ops.sum(hardest), 1.0)

    def get_config(self):
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "ohem_fraction": self.ohem_fraction,
        }


@keras.saving.register_keras_serializable(package="kseg")
class Dice(_PixelLoss):
    """1 - the soft Dice coefficient of the foreground, over the whole batch.

    `1 - 2 sum(p * t) / (sum(p) + sum(t))`, where p is the probability of a class and t whether a
    pixel is of it; the mean over all classes but class 0. With two classes that is the loss of
    D-LinkNet, whose one sigmoid is the softmax of two logits.

    Args:
        ignore_label: Integer. Label of the pixels that count for nothing. Defaults to 255.
        smooth: Number > 0, added above and below the line, so that a batch without the class and
            a prediction without it cost 0. Defaults to 1e-6; the reference code has 0, and NaN
            in such a batch.

    Call arguments:
        labels: Integer tensor `(batch, height, width)`.
        logits: Float tensor `(batch, height, width, classes)`.
        weights: `None` or a float tensor of the shape of `labels`: pixels of weight 0 are left
            out. Under several replicas each has a Dice coefficient of its own.

    Raises:
        ValueError: If `smooth` is not a number > 0.

    Reference:
        Zhou et al., "D-LinkNet: LinkNet with Pretrained Encoder and Dilated Convolution for High
        Resolution Satellite Imagery Road Extraction", 2018, and its code, `loss.py`.
    """

    def __init__(self, *, ignore_label=255, smooth=1e-6, name="dice"):
        super().__init__(ignore_label=ignore_label, name=name)
        if not _is_number(smooth) or smooth <= 0:
            raise ValueError(f"`smooth` must be a number > 0. Received: {smooth!r}")
        self.smooth = float(smooth)

    def value(self, labels, weights, logits):
        valid = ops.expand_dims(ops.cast(weights > 0, "float32"), -1)
        classes = logits.shape[-1]
        truth = ops.one_hot(labels, classes, dtype="float32") * valid
        predicted = ops.softmax(logits, axis=-1) * valid
        both, either = (
            ops.sum(tensor, axis=(0, 1, 2))[1:] for tensor in (truth * predicted, truth + predicted)
        )
        return 1 - ops.mean((2 * both + self.smooth) / (either + self.smooth))

    def get_config(self):
        return {**super().get_config(), "smooth": self.smooth}


@keras.saving.register_keras_serializable(package="kseg")
class SumOfLosses(keras.losses.Loss):
    """The sum of several losses, such as `[CrossEntropy(), Dice()]`, D-LinkNet's for roads.

    Args:
        losses: List of losses with the call of those above.
    """

    def __init__(self, losses, *, name="sum_of_losses"):
        super().__init__(name=name)
        self.losses = list(losses)
        if not self.losses:
            raise ValueError("`losses` must hold at least one loss. Received: []")

    def __call__(self, labels, logits, weights=None):
        return sum(loss(labels, logits, weights) for loss in self.losses)

    def get_config(self):
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        return {"name": self.name, "losses": losses}

    @classmethod
    def from_config(cls, config):
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(losses, name=config["name"])


# What a flag names -> the loss.
LOSSES = {"cross_entropy": CrossEntropy, "dice": Dice}


def _count(tensor):
    """The number of values of a tensor, as a float."""
    return ops.cast(ops.prod(ops.shape(tensor)), "float32")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
