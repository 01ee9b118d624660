"""Random scaling, cropping, flipping, rotation, distortion and colour shifts of image and label.

The recipes of the papers, as fields of `Augmentation`, which are also arguments of
`pipeline.train_dataset`:

    DeepLab, KSAC, LKSPP   the defaults: scales 0.5 to 2 in steps of 0.25, padding, cropping, flip
    Vortex                 scale_step=0: any scale between 0.5 and 2
    GCN                    min_scale=1, max_scale=1: padded to crop_size (640 or 512), not scaled
    DFP                    min_scale=1, max_scale=1: crops of 512, flip
    KSAC on ADE20K         resize_to_crop=True: each image is resized to 513x513 first
    D-LinkNet (roads)      min_scale=1, max_scale=1, hsv=True, spatial=True, vertical_flip=True,
                           quarter_turns=True

All geometric transformations are combined into one `Window` of the stored image before any pixel is
decoded. The window consists of whole pixels. Therefore the scale of a crop differs from the drawn
scale by less than one source pixel over the crop, and an enlarged crop starts at a whole source
pixel. Image and label share the window.
"""

import dataclasses
import math
import warnings

import tensorflow as tf

from kseg.data import colour
from kseg.data.window import Window, crop_to_window, decode_window, window_to_crop

# D-LinkNet's spatial transformation: the largest shift as a fraction of height and width, and the
# largest deviations of the scale and of the aspect ratio from 1.
MAX_SHIFT, MAX_ZOOM, MAX_ASPECT = 0.1, 0.1, 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random transformations of a training example and the size of the result.

    Attributes:
        crop_size: Height and width of the result.
        pad_value: RGB of the padding, 0..255: the mean that the weights of the backbone expect, so
            that the padding is zero after normalisation.
        ignore_label: Label of the padding. Defaults to 255 (PASCAL VOC).
        min_scale: Smallest scale. Defaults to 0.5 (DeepLab).
        max_scale: Largest scale. Defaults to 2 (DeepLab).
        scale_step: Step between the scales that can be drawn; 0 draws any scale in the range.
            Defaults to 0.25 (DeepLab).
        flip: Whether half of the examples are flipped left to right. Defaults to True (DeepLab).
        resize_to_crop: Whether an image is resized to `crop_size` before it is scaled.
        vertical_flip: Whether half of the examples are flipped upside down.
        quarter_turns: Whether half of the examples are rotated by 90 degrees counter-clockwise.
            Together with both flips this gives the eight symmetries of a square.
        spatial: Whether half of the images are shifted by up to a tenth of their height and width,
            and scaled by 0.9 to 1.1 with an aspect ratio of 0.9 to 1.1, within their frame.
        hsv: Whether hue, saturation and value of half of the images are shifted, see `colour`.

    Raises:
        ValueError: If a size is below 1, or a scale is negative or above `max_scale`.

    Reference:
        D-LinkNet (zlckanata/DeepGlobe-Road-Extraction-Challenge, `data.py`) for the last four.
        Departures: pixels from outside the image are `pad_value` and `ignore_label` instead of
        black and background. Labels are resized to the nearest pixel instead of being interpolated
        and thresholded. Width and height are scaled by s * sqrt(aspect) and s / sqrt(aspect), which
        is what that code intends, although it scales both by s * sqrt(aspect). Shift, scale and
        aspect ratio are rounded to whole pixels.
    """

    crop_size: tuple[int, int]
    pad_value: tuple[float, float, float]
    ignore_label: int = 255
    min_scale: float = 0.5
    max_scale: float = 2.0
    scale_step: float = 0.25
    flip: bool = True
    resize_to_crop: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    spatial: bool = False
    hsv: bool = False

    def __post_init__(self) -> None:
        if len(self.crop_size) != 2 or min(self.crop_size) < 1:
            raise ValueError(
                f"`crop_size` must be two sizes of at least 1. Received: {self.crop_size}"
            )
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(
                "`min_scale` must be above 0 and at most `max_scale`. "
                f"Received: {self.min_scale} and {self.max_scale}"
            )
        if self.scale_step < 0:
            raise ValueError(f"`scale_step` must not be negative. Received: {self.scale_step}")


def augment(
    image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augments a decoded example. The result depends on nothing but the arguments.

    Args:
        image: uint8 or float `[height, width, 3]`, RGB, 0..255.
        label: uint8 `[height, width]`.
        seed: int32 or int64 `[2]`.
        augmentation: The transformations.

    Returns:
        float32 image `[*crop_size, 3]`, 0..255, and uint8 label `[*crop_size]`.
    """
    window, colour_draws = _draw(tf.shape(label), seed, augmentation)
    image = crop_to_window(image, window)
    return _transform(image, crop_to_window(label, window), window, colour_draws, augmentation)


def augment_encoded(
    image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes `augment(decode_image(image), label, ...)`, but decodes only what the crop needs.

    The result is exactly the same.

    Args:
        image: string scalar, the bytes of a JPEG or PNG file.
        label: uint8 `[height, width]`.
        seed: int32 or int64 `[2]`.
        augmentation: The transformations.

    Returns:
        float32 image `[*crop_size, 3]`, 0..255, and uint8 label `[*crop_size]`.

    Raises:
        tf.errors.InvalidArgumentError: If image and label differ in size, or the image is damaged.
    """
    shape = tf.shape(label)
    window, colour_draws = _draw(shape, seed, augmentation)
    image = decode_window(image, window, shape)
    return _transform(image, crop_to_window(label, window), window, colour_draws, augmentation)


def nearest_aligned_size(size: int, output_stride: int) -> int:
    """Returns the nearest size k * output_stride + 1 with k at least 1; of two, the larger."""
    return max((2 * (size - 1) + output_stride) // (2 * output_stride), 1) * output_stride + 1


def warn_about_crop_size(crop_size: tuple[int, int], output_stride: int) -> None:
    """Warns of a crop size that a network with `align_corners` must pad.

    Such networks (the DeepLab family) align the corners of a feature map with the corners of the
    image. This holds at every stride if height and width are k * output_stride + 1. The network
    pads other sizes to the next such size, see `kseg.layers.PadToStride`, and what it computes for
    this padding is not used.

    Args:
        crop_size: Height and width.
        output_stride: Ratio of the size of the input to that of the last feature map.
    """
    aligned = tuple(nearest_aligned_size(size, output_stride) for size in crop_size)
    if aligned != tuple(crop_size):
        warnings.warn(
            f"`crop_size` should be k * {output_stride} + 1. The network pads other sizes to the "
            f"next such size, which costs time. Received: {','.join(map(str, crop_size))}; "
            f"nearest: {','.join(map(str, aligned))}",
            stacklevel=2,
        )


def _transform(image, label, window: Window, colour_draws, augmentation: Augmentation):
    """Applies the transformations to image and label, which are cropped to the window."""
    if colour_draws is not None:
        image = colour.random_hsv(image, colour_draws)
    return window_to_crop(
        image,
        label,
        window,
        crop_size=tuple(augmentation.crop_size),
        pad_value=augmentation.pad_value,
        ignore_label=augmentation.ignore_label,
    )


def _draw(shape, seed, augmentation: Augmentation):
    """Draws the window of an image of `shape` and the numbers for `colour.random_hsv`, or None.

    The order of the draws must not change: a run that is resumed expects the same crops.
    """
    draws = tf.random.stateless_uniform([4], seed, alg="philox")
    scale = _pick_scale(draws[0], augmentation)
    flipped_rows = transposed = colour_draws = None
    flipped_columns = draws[3] < 0.5 if augmentation.flip else None
    zoom, shift = tf.ones(2), tf.zeros(2)
    vertical_flip, quarter_turns = augmentation.vertical_flip, augmentation.quarter_turns
    if vertical_flip or quarter_turns or augmentation.spatial or augmentation.hsv:
        more_seed = tf.random.experimental.stateless_fold_in(seed, 1, alg="philox")
        more = tf.random.stateless_uniform([11], more_seed, alg="philox")
        flipped_rows = more[0] < 0.5 if vertical_flip else None
        if quarter_turns:
            # A quarter turn is a transposition followed by a vertical flip.
            transposed = more[1] < 0.5
            flipped_rows = (
                transposed if flipped_rows is None else tf.not_equal(flipped_rows, transposed)
            )
        colour_draws = more[2:6] if augmentation.hsv else None
        if augmentation.spatial:
            zoom, shift = _draw_distortion(more[6:11])

    # From here on, everything is a pair (rows, columns) in the orientation of the crop.
    crop = tf.constant(augmentation.crop_size, tf.float32)
    image_size = tf.cast(shape, tf.float32)
    if transposed is not None:
        image_size = tf.where(transposed, image_size[::-1], image_size)
    # The frame is the area of the scaled image. Along each axis the crop lies inside the frame, or
    # the frame is smaller and lies at the top left of the crop.
    frame = (crop if augmentation.resize_to_crop else image_size) * scale
    frame = tf.maximum(tf.round(frame), 1.0)
    offset = tf.floor(draws[1:3] * (tf.maximum(frame - crop, 0.0) + 1.0))
    # The image fills the frame, unless the spatial transformation moves it.
    image_start = frame * (0.5 + shift - 0.5 * zoom) - offset
    image_stop = frame * (0.5 + shift + 0.5 * zoom) - offset
    start = tf.round(tf.maximum(image_start, -offset))
    start = tf.clip_by_value(start, 0.0, crop - 1.0)
    stop = tf.round(tf.minimum(image_stop, frame - offset))
    stop = tf.clip_by_value(stop, start + 1.0, crop)
    # The same part of the crop in pixels of the stored image.
    ratio = image_size / (image_stop - image_start)
    source_size = tf.clip_by_value(tf.round((stop - start) * ratio), 1.0, image_size)
    source_start = tf.round((start - image_start) * ratio)
    source_start = tf.clip_by_value(source_start, 0.0, image_size - source_size)

    target_start = []
    for axis, flipped in enumerate((flipped_rows, flipped_columns)):
        first = start[axis]
        if flipped is not None:
            first = tf.where(flipped, augmentation.crop_size[axis] - stop[axis], first)
        target_start.append(first)
    if transposed is not None:
        source_start = tf.where(transposed, source_start[::-1], source_start)
        source_size = tf.where(transposed, source_size[::-1], source_size)
    pairs = tf.stack([source_start, source_size, tf.stack(target_start), stop - start])
    window = Window(
        *tf.unstack(tf.cast(pairs, tf.int32)),
        transposed=transposed,
        flipped=(flipped_rows, flipped_columns),
    )
    return window, colour_draws


def _draw_distortion(draws):
    """Draws D-LinkNet's zoom and shift of rows and columns, the shift as a fraction of the size."""
    apply = draws[0] < 0.5
    zoom = 1.0 + MAX_ZOOM * (2.0 * draws[1] - 1.0)
    root = tf.sqrt(1.0 + MAX_ASPECT * (2.0 * draws[2] - 1.0))
    zoom = tf.where(apply, tf.stack([zoom / root, zoom * root]), tf.ones(2))
    shift = tf.where(apply, MAX_SHIFT * (2.0 * draws[3:5] - 1.0), tf.zeros(2))
    return zoom, shift


def _pick_scale(draw, augmentation: Augmentation):
    """Maps a number in [0, 1) to one of the scales, or to any scale if `scale_step` is 0."""
    low, step = augmentation.min_scale, augmentation.scale_step
    span = augmentation.max_scale - low
    if not step:
        return low + draw * span
    # The small term keeps a last step that rounding would lose, as in (2 - 0.5) / 0.1.
    num_scales = math.floor(span / step + 1e-6) + 1
    return low + step * tf.floor(draw * num_scales)
