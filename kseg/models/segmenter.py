"""The class of all networks of kseg: a functional Keras model that knows what it needs."""

from collections.abc import Callable
from types import ModuleType

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments


@keras.saving.register_keras_serializable(package="kseg")
class Segmenter(keras.Model):
    """A functional model from RGB images in 0..255 to class logits at the size of the images.

    It is used like any functional `keras.Model`: `segmenter(images)`, `fit`, `save`, `layers`. In
    addition it knows the facts that inference needs, and `predict_classes` and `overlay` apply it
    to images of any size. `keras.models.clone_model` does not keep these facts: its copy has their
    defaults. `Segmenter.from_config(segmenter.get_config())` keeps them.

    Args:
        inputs: `keras.Input` of images `(batch, height, width, 3)`.
        outputs: Logits `(batch, height, width, num_classes)`, or a list of these and of auxiliary
            logits for training.
        pad_value: Tuple of three floats. RGB levels that the network normalises to zero, with which
            images are padded. Defaults to `(127.5, 127.5, 127.5)`.
        align_corners: Boolean. Whether the network resizes its maps with `align_corners`; images
            are then resized in the same way. Defaults to True.
        stride: Integer. Moving an image by multiples of this number of pixels moves its features by
            whole positions. Defaults to 32, which every output stride of `kseg.models` divides.
        context: String. Name of the layer that is the context module. Defaults to `""` for a
            network without one.
        class_names: Tuple of strings, one for each class. Defaults to `()`, not known.
        class_colours: Tuple of (red, green, blue) in 0..255, one for each class. Defaults to `()`,
            not known.

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Example:
        >>> import keras
        >>> from kseg.models import Segmenter
        >>> images = keras.Input((None, None, 3))
        >>> logits = keras.layers.Conv2D(2, 3, padding="same")(images)
        >>> segmenter = Segmenter(images, logits, class_names=("background", "road"))
        >>> segmenter.num_classes
        2
    """

    _load_inference: Callable[[], ModuleType] | None = None

    # Keras restores a functional subclass only if its constructor takes *args and **kwargs.
    def __init__(
        self,
        *args,
        pad_value: tuple[float, float, float] = (127.5, 127.5, 127.5),
        align_corners: bool = True,
        stride: int = 32,
        context: str = "",
        class_names: tuple[str, ...] = (),
        class_colours: tuple[tuple[int, int, int], ...] = (),
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.pad_value = arguments.number_tuple("pad_value", pad_value, 3)
        self.align_corners = arguments.boolean("align_corners", align_corners)
        self.stride = arguments.positive_integer("stride", stride)
        if context not in ("", *(layer.name for layer in self.layers)):
            raise ValueError(f"`context` must be '' or the name of a layer. Received: {context!r}")
        self.context = context
        self.set_classes(class_names, class_colours)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.outputs[0].shape[-1]

    @property
    def backbone(self) -> list[keras.Model]:
        """The backbone: one model, or the two parts into which `dfp_fcn` splits it.

        These are the layers that are models themselves, the context module excluded.
        """
        return [
            layer
            for layer in self.layers
            if isinstance(layer, keras.Model) and layer.name != self.context
        ]

    def set_classes(
        self,
        names: tuple[str, ...] = (),
        colours: tuple[tuple[int, int, int], ...] = (),
    ) -> None:
        """Sets the names and the colours of the classes.

        Args:
            names: Tuple of strings, one for each class, or `()`.
            colours: Tuple of (red, green, blue) in 0..255, one for each class, or `()`.

        Raises:
            ValueError: If there is another number of names or colours than of classes, or if one
                of them is not as described above.
        """
        for argument, values in (("class_names", names), ("class_colours", colours)):
            if not isinstance(values, (tuple, list)) or len(values) not in (0, self.num_classes):
                raise ValueError(
                    f"`{argument}` must be a tuple of one item for each of the {self.num_classes} "
                    f"classes, or (). Received: {values!r}"
                )
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"`class_names` must hold strings. Received: {names!r}")
        if not all(_is_colour(colour) for colour in colours):
            raise ValueError(
                f"`class_colours` must hold triples of integers in 0..255. Received: {colours!r}"
            )
        self.class_names = tuple(names)
        self.class_colours = tuple(tuple(int(level) for level in colour) for colour in colours)

    def without_auxiliary(self) -> "Segmenter":
        """Returns the network with its first output only; all layers are shared with this one."""
        if len(self.outputs) == 1:
            return self
        return type(self)(self.inputs[0], self.outputs[0], name=self.name, **self._facts())

    def rate_maps(self, images: np.ndarray) -> dict[int, np.ndarray]:
        """Computes the map of each dilation rate of the context module.

        Args:
            images: Array `(batch, height, width, 3)`, RGB in 0..255.

        Returns:
            Dictionary from the rate to a float array `(batch, rows, columns, filters)`, after
            normalisation and ReLU, without the part that belongs to padding. It is empty if the
            network has no context module with dilation rates.
        """
        layer = self.get_layer(self.context) if self.context else None
        if not hasattr(layer, "rate_maps"):
            return {}
        trunk = keras.Model(self.inputs[0], layer.input)
        features = trunk(ops.convert_to_tensor(images, "float32"), training=False)
        # Images are padded below and on the right; see `kseg.layers.PadToStride`.
        rows, columns = (-(-side // self.stride) for side in images.shape[1:3])
        return {
            rate: ops.convert_to_numpy(rate_map)[:, :rows, :columns]
            for rate, rate_map in zip(layer.dilation_rates, layer.rate_maps(features), strict=True)
        }

    def predict_classes(self, images: np.ndarray, **options) -> np.ndarray:
        """Predicts the class of every pixel of an image or a batch of images.

        Args:
            images: uint8 array `(height, width, 3)` or `(batch, height, width, 3)`, RGB, of any
                size.
            **options: The inference options of `kseg.predict`, such as `scales=(0.75, 1.0)`,
                `flip=True` or `tile=1024`; see `kseg.inference.segmentation.predict_classes`.

        Returns:
            uint8 array `(height, width)` or `(batch, height, width)` of class ids.

        Raises:
            ValueError: If the images or an option are not as described above.
        """
        return self._inference().predict_classes(self, images, **options)

    def overlay(self, image: np.ndarray, *, alpha: float = 0.5, **options) -> np.ndarray:
        """Draws the predicted classes over an image.

        Args:
            image: uint8 array `(height, width, 3)`, RGB, of any size.
            alpha: Float in [0, 1]. Weight of the class colours. Defaults to 0.5.
            **options: As in `predict_classes`.

        Returns:
            uint8 array `(height, width, 3)`.

        Raises:
            ValueError: If the image or an option are not as described above.
        """
        return self._inference().overlay(self, image, alpha=alpha, **options)

    @classmethod
    def register_inference(cls, load: Callable[[], ModuleType]) -> None:
        """Registers the implementation of `predict_classes` and `overlay`.

        They need TensorFlow and `kseg.visualization`, which this library part does not import. The
        package registers them when it is imported, and loads them at the first use.

        Args:
            load: Function that returns a module with functions `predict_classes` and `overlay`,
                which take a `Segmenter` first.
        """
        cls._load_inference = staticmethod(load)

    def _inference(self) -> ModuleType:
        if self._load_inference is None:
            raise RuntimeError("The inference of kseg is not registered: `import kseg` does it")
        return self._load_inference()

    def _facts(self) -> dict:
        return {
            "pad_value": self.pad_value,
            "align_corners": self.align_corners,
            "stride": self.stride,
            "context": self.context,
            "class_names": self.class_names,
            "class_colours": self.class_colours,
        }

    def get_config(self) -> dict:
        return {**super().get_config(), **self._facts()}


def _is_colour(value) -> bool:
    """Returns whether a value is a triple of integers in 0..255."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 3
        and all(arguments.is_integer(level) and 0 <= level <= 255 for level in value)
    )
