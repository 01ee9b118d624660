"""Losses of the papers, on logits of the size of the labels, written in `keras.ops`.

A loss is called as Keras calls it: with labels, logits and, if the input pipeline provides them,
pixel weights. The mean over the labelled pixels of a batch needs their number. On several replicas
that is the number in the global batch, which a replica does not know. `pixel_weights` therefore
includes it in weights that are computed with the batch, before it is split: the plain mean of
weight times loss is then correct however the batch is split.
"""

from collections.abc import Sequence

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.types import Tensor


def pixel_weights(labels: Tensor, ignore_label: int = 255) -> Tensor:
    """Returns weights with which a mean over all pixels is the mean over the labelled ones.

    Args:
        labels: Integer tensor `(batch, height, width)`, the global batch.
        ignore_label: Integer. Label of the pixels to leave out. Defaults to 255 (PASCAL VOC).

    Returns:
        float32 tensor of the same shape: 0 at pixels to leave out, and the number of all pixels
        divided by the number of labelled ones elsewhere. If no pixel is labelled, it is 0.
    """
    valid = ops.cast(ops.not_equal(labels, ignore_label), "float32")
    return valid / ops.maximum(ops.mean(valid), 1.0 / _count(valid))


class _PixelLoss(keras.losses.Loss):
    """A loss of labels and pixel weights; a subclass computes it as a scalar in `value`.

    A label that is neither a class nor `ignore_label` gives NaN. On a CPU, TensorFlow's
    cross-entropy raises an error with the label.
    """

    def __init__(self, *, ignore_label, name):
        super().__init__(name=name)
        self.ignore_label = ignore_label

    def __call__(self, labels, logits, weights=None):
        labels, logits = ops.convert_to_tensor(labels), ops.convert_to_tensor(logits)
        if len(labels.shape) == len(logits.shape) and labels.shape[-1] == 1:
            labels = ops.squeeze(labels, axis=-1)
        _require_fit("labels", labels.shape, logits.shape)
        if weights is None:
            weights = pixel_weights(labels, self.ignore_label)
        else:
            weights = ops.convert_to_tensor(weights)
            _require_fit("weights", weights.shape, logits.shape)
        return super().__call__((labels, weights), logits)

    def call(self, truth, logits):
        labels, weights = ops.cast(truth[0], "int32"), ops.cast(truth[1], "float32")
        # Ignored pixels have the weight 0, whatever their class.
        labels = ops.where(ops.equal(labels, self.ignore_label), 0, labels)
        value = self.value(labels, weights, ops.cast(logits, "float32"))
        is_class = ops.logical_and(labels >= 0, labels < logits.shape[-1])
        value = ops.where(ops.all(is_class), value, float("nan"))
        # Keras does not divide a scalar loss by the number of replicas, whose gradients it adds.
        return ops.reshape(value, (1,))

    def value(self, labels, weights, logits):
        """Returns the loss for int32 labels, float32 weights and float32 logits.

        Ignored pixels have the label 0 and the weight 0.
        """
        raise NotImplementedError

    def get_config(self):
        return {"name": self.name, "ignore_label": self.ignore_label}


@keras.saving.register_keras_serializable(package="kseg")
class CrossEntropy(_PixelLoss):
    """Softmax cross-entropy: the mean over the labelled pixels, or 0 if there are none.

    Args:
        ignore_label: Integer. Label of the pixels to leave out. Defaults to 255 (PASCAL VOC).
        class_weights: Tuple of numbers >= 0, one for each class, that multiply the loss of the
            pixels of that class. The sum is still divided by the number of pixels (the official
            DeepLab code). Defaults to `None`, all 1.
        ohem_fraction: Number in (0, 1]. Fraction of hardest pixels kept: only the pixels with the
            highest losses count (online hard example mining, `top_k_percent_pixels` of the
            official code), and their sum is divided by their number. Defaults to 1, all pixels.

    Call arguments:
        labels: Integer tensor `(batch, height, width)`.
        logits: Float tensor `(batch, height, width, classes)`.
        weights: `None` or a float tensor of the shape of `labels`, see `pixel_weights`. With an
            `ohem_fraction` below 1 only whether a weight is 0 matters, and each replica selects
            its own hardest pixels.

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution", 2018, and its code,
        `deeplab/utils/train_utils.py`. Computed in float32 whatever the dtype of the logits.
    """

    def __init__(
        self,
        *,
        ignore_label: int = 255,
        class_weights: Sequence[float] | None = None,
        ohem_fraction: float = 1.0,
        name: str = "cross_entropy",
    ):
        super().__init__(ignore_label=ignore_label, name=name)
        self.class_weights = None if class_weights is None else tuple(class_weights)
        if self.class_weights is not None:
            if not all(arguments.is_number(w) and w >= 0 for w in self.class_weights):
                raise ValueError(
                    f"`class_weights` must be numbers >= 0. Received: {class_weights!r}"
                )
            self.class_weights = tuple(map(float, self.class_weights))
        self.ohem_fraction = arguments.positive_fraction("ohem_fraction", ohem_fraction)

    def value(self, labels: Tensor, weights: Tensor, logits: Tensor) -> Tensor:
        classes = logits.shape[-1]
        losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        if self.class_weights is not None:
            if len(self.class_weights) != classes:
                raise ValueError(
                    f"`class_weights` must be one number for each of {classes} classes. "
                    f"Received: {len(self.class_weights)} numbers"
                )
            class_weights = ops.convert_to_tensor(self.class_weights, "float32")
            losses = losses * ops.take(class_weights, labels)
        if self.ohem_fraction == 1:
            return ops.mean(losses * weights)
        losses = ops.reshape(ops.where(weights > 0, losses, 0.0), (-1,))
        kept = ops.cast(ops.ceil(self.ohem_fraction * _count(losses)), "int32")
        # The smallest loss that is kept; all pixels with this loss are kept.
        least = ops.flip(ops.sort(losses), 0)[kept - 1]
        hardest = ops.cast(ops.logical_and(losses >= least, losses > 0), "float32")
        return ops.sum(losses * hardest) / ops.maximum(ops.sum(hardest), 1.0)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "ohem_fraction": self.ohem_fraction,
        }


@keras.saving.register_keras_serializable(package="kseg")
class Dice(_PixelLoss):
    """1 - the soft Dice coefficient of the foreground, over the whole batch.

    `1 - 2 sum(p * t) / (sum(p) + sum(t))`, where p is the probability of a class and t whether a
    pixel belongs to it; the mean over all classes but class 0. With two classes this is the loss of
    D-LinkNet, whose single sigmoid equals the softmax of two logits.

    Args:
        ignore_label: Integer. Label of the pixels to leave out. Defaults to 255 (PASCAL VOC).
        smooth: Number > 0. Added to numerator and denominator, so that the loss is 0 if neither
            the labels nor the prediction contain the class. Defaults to 1e-6; the reference code
            has 0, which gives NaN in that case.

    Call arguments:
        labels: Integer tensor `(batch, height, width)`.
        logits: Float tensor `(batch, height, width, classes)`.
        weights: `None` or a float tensor of the shape of `labels`: pixels of weight 0 are left
            out. With several replicas each computes its own Dice coefficient.

    Raises:
        ValueError: If `smooth` is not a number > 0.

    Reference:
        Zhou et al., "D-LinkNet: LinkNet with Pretrained Encoder and Dilated Convolution for High
        Resolution Satellite Imagery Road Extraction", 2018, and its code, `loss.py`.
    """

    def __init__(self, *, ignore_label: int = 255, smooth: float = 1e-6, name: str = "dice"):
        super().__init__(ignore_label=ignore_label, name=name)
        self.smooth = arguments.positive_number("smooth", smooth)

    def value(self, labels: Tensor, weights: Tensor, logits: Tensor) -> Tensor:
        valid = ops.expand_dims(ops.cast(weights > 0, "float32"), -1)
        classes = logits.shape[-1]
        truth = ops.one_hot(labels, classes, dtype="float32") * valid
        predicted = ops.softmax(logits, axis=-1) * valid
        both, either = (
            ops.sum(tensor, axis=(0, 1, 2))[1:] for tensor in (truth * predicted, truth + predicted)
        )
        return 1 - ops.mean((2 * both + self.smooth) / (either + self.smooth))

    def get_config(self) -> dict:
        return {**super().get_config(), "smooth": self.smooth}


@keras.saving.register_keras_serializable(package="kseg")
class SumOfLosses(keras.losses.Loss):
    """The sum of several losses, such as `[CrossEntropy(), Dice()]` (D-LinkNet, for roads).

    Args:
        losses: List of losses of this module.

    Raises:
        ValueError: If `losses` is empty.
    """

    def __init__(self, losses: Sequence[keras.losses.Loss], *, name: str = "sum_of_losses"):
        super().__init__(name=name)
        self.losses = list(losses)
        if not self.losses:
            raise ValueError("`losses` must contain at least one loss. Received: []")

    def __call__(self, labels: Tensor, logits: Tensor, weights: Tensor | None = None) -> Tensor:
        return sum(loss(labels, logits, weights) for loss in self.losses)

    def get_config(self) -> dict:
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        return {"name": self.name, "losses": losses}

    @classmethod
    def from_config(cls, config: dict) -> "SumOfLosses":
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(losses, name=config["name"])


# Name of a loss, as a flag takes it -> the loss.
LOSSES = {"cross_entropy": CrossEntropy, "dice": Dice}


def _require_fit(name, shape, logits_shape):
    """Raises unless a tensor has one value for each pixel; otherwise it would be broadcast."""
    if len(shape) != len(logits_shape) - 1 or not arguments.may_be_equal(shape, logits_shape):
        raise ValueError(
            f"`{name}` must have one value for each pixel of the logits, which have the shape "
            f"{tuple(logits_shape)}. Received: shape {tuple(shape)}"
        )


def _count(tensor):
    """Returns the number of values of a tensor, as a float."""
    return ops.cast(ops.prod(ops.shape(tensor)), "float32")
