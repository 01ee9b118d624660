"""Random scale, crop, flip, turn, distortion and colour of an image and its label.

How the papers' recipes are spelled, as fields of `Augmentation` (which are the same arguments of
`pipeline.train_dataset`):

    DeepLab, KSAC, LKSPP   the defaults: scale 0.5 to 2 in steps of 0.25, pad, crop, flip
    Vortex                 scale_step=0: any scale between
    GCN                    min_scale=1, max_scale=1: padded to crop_size, 640 or 512, not scaled
    DFP                    min_scale=1, max_scale=1: crop 512, flip
    KSAC on ADE20K         resize_to_crop=True: each image is stretched to 513x513 first
    D-LinkNet (roads)      min_scale=1, max_scale=1, hsv=True, spatial=True, vertical_flip=True,
                           quarter_turns=True

Everything geometric is settled before a pixel is decoded, as a `Window` of the stored picture: the
window has whole pixels, so the scale of a crop differs from the drawn one by less than one source
pixel over the crop, and an enlarged crop begins at a whole source pixel. Image and label take the
same window.
"""

import dataclasses
import math
import warnings

import tensorflow as tf

from kseg.data import colour
from kseg.data.window import Window, cut, decode_cut, place

# D-LinkNet's spatial transformation: greatest shift as a share of the side, and greatest departure
# of scale and of aspect from 1.
MAX_SHIFT, MAX_ZOOM, MAX_ASPECT = 0.1, 0.1, 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to an example, and how large it comes out.

    Attributes:
        crop_size: Height and width of the result.
        pad_value: RGB of the padding, 0..255: the mean that the backbone's weights expect, so that
            padding is zero after normalisation.
        ignore_label: Label of the padding.
        min_scale: Smallest factor.
        max_scale: Largest factor.
        scale_step: Step between the factors that may be drawn; 0 draws any factor between.
        flip: Whether half of the results are mirrored left to right.
        resize_to_crop: Whether an image is stretched to `crop_size` before it is scaled.
        vertical_flip: Whether half of the results are mirrored upside down.
        quarter_turns: Whether half of the results are turned by 90 degrees, against the clock; with
            both flips these are the eight ways to lay a square.
        spatial: Whether half of the images are shifted by up to a tenth of their sides and scaled
            by 0.9 to 1.1, with an aspect of 0.9 to 1.1, within their frame.
        hsv: Whether hue, saturation and value of half of the images are shifted, see `colour`.

    Raises:
        ValueError: A size below 1, or scales out of order.

    Reference:
        D-LinkNet (zlckanata/DeepGlobe-Road-Extraction-Challenge, `data.py`) for the last four.
        Departures: what comes in from outside is `pad_value` and `ignore_label` instead of black
        and background; labels are picked instead of interpolated and cut at one half; width and
        height are scaled by s * sqrt(aspect) and s / sqrt(aspect), as is meant there, where the
        code scales both by the former; its shift, scale and aspect end at whole pixels.
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
            raise ValueError(f"`crop_size` must be two sizes >= 1. Received: {self.crop_size}")
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
    """Augments a decoded example; a pure function of its arguments.

    Args:
        image: uint8 or float `[height, width, 3]`, RGB, 0..255.
        label: uint8 `[height, width]`.
        seed: int32 or int64 `[2]`.
        augmentation: What may happen.

    Returns:
        float32 image `[*crop_size, 3]`, 0..255, and uint8 label `[*crop_size]`.
    """
    window, colour_draws = _draw(tf.shape(label), seed, augmentation)
    return _finish(cut(image, window), cut(label, window), window, colour_draws, augmentation)


def augment_encoded(
    image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """`augment(decode_image(image), label, ...)`, the same bytes, decoding only what is needed.

    Args:
        image: string scalar, the bytes of a JPEG or PNG file.
        label: uint8 `[height, width]`.
        seed: int32 or int64 `[2]`.
        augmentation: What may happen.

    Returns:
        float32 image `[*crop_size, 3]`, 0..255, and uint8 label `[*crop_size]`.

    Raises:
        tf.errors.InvalidArgumentError: Image and label differ in size, or the image is damaged.
    """
    shape = tf.shape(label)
    window, colour_draws = _draw(shape, seed, augmentation)
    image = decode_cut(image, window, shape)
    return _finish(image, cut(label, window), window, colour_draws, augmentation)


def nearest_good_size(size: int, output_stride: int) -> int:
    """The size k * output_stride + 1 next to `size`, k at least 1; of two the larger."""
    return max((2 * (size - 1) + output_stride) // (2 * output_stride), 1) * output_stride + 1


def warn_about_crop_size(crop_size: tuple[int, int], output_stride: int) -> None:
    """Warns of a crop that a network which resizes with align_corners must pad.

    Such networks (the DeepLab family) put the corners of a feature map on the corners of the image.
    That holds at every stride if its sides are k * output_stride + 1; others they pad inside to the
    next such size, see `kseg.layers.PadToStride`, and what they compute there is not used.

    Args:
        crop_size: Height and width.
        output_stride: Input size over the size of the last feature map.
    """
    good = tuple(nearest_good_size(size, output_stride) for size in crop_size)
    if good != tuple(crop_size):
        warnings.warn(
            f"`crop_size` should be k * {output_stride} + 1: the network pads other sizes to the "
            f"next such size and computes what is not used. Received: "
            f"{','.join(map(str, crop_size))}; nearest: {','.join(map(str, good))}",
            stacklevel=2,
        )


def _finish(image, label, window: Window, colour_draws, how: Augmentation):
    if colour_draws is not None:
        image = colour.random_hsv(image, colour_draws)
    return place(
        image,
        label,
        window,
        crop_size=tuple(how.crop_size),
        pad_value=how.pad_value,
        ignore_label=how.ignore_label,
    )


def _draw(shape, seed, how: Augmentation):
    """The window of an image of a shape (height, width), and four numbers for its colours."""
    draws = tf.random.stateless_uniform([4], seed, alg="philox")
    scale = _pick_scale(draws[0], how.min_scale, how.max_scale, how.scale_step)
    mirrored_rows = turned = colour_draws = None
    mirrored_columns = draws[3] < 0.5 if how.flip else None
    zoom, shift = tf.ones(2), tf.zeros(2)
    if how.vertical_flip or how.quarter_turns or how.spatial or how.hsv:
        more_seed = tf.random.experimental.stateless_fold_in(seed, 1, alg="philox")
        more = tf.random.stateless_uniform([11], more_seed, alg="philox")
        mirrored_rows = more[0] < 0.5 if how.vertical_flip else None
        if how.quarter_turns:
            # A quarter turn is rows for columns, then upside down.
            turned = more[1] < 0.5
            mirrored_rows = turned if mirrored_rows is None else tf.not_equal(mirrored_rows, turned)
        colour_draws = more[2:6] if how.hsv else None
        if how.spatial:
            zoom, shift = _distortion(more[6:11])

    # From here on everything is a pair (rows, columns) of the result.
    crop = tf.constant(how.crop_size, tf.float32)
    lengths = tf.cast(shape, tf.float32)
    if turned is not None:
        lengths = tf.where(turned, lengths[::-1], lengths)
    # The frame is the scaled image; the crop lies in it, or it in the crop, at the top left.
    frame = tf.maximum(tf.round((crop if how.resize_to_crop else lengths) * scale), 1.0)
    offset = tf.floor(draws[1:3] * (tf.maximum(frame - crop, 0.0) + 1.0))
    # The picture in the frame: all of it, unless the spatial transformation moves it.
    start = frame * (0.5 + shift - 0.5 * zoom) - offset
    stop = frame * (0.5 + shift + 0.5 * zoom) - offset
    first = tf.round(tf.maximum(start, -offset))
    first = tf.clip_by_value(first, 0.0, crop - 1.0)
    last = tf.round(tf.minimum(stop, frame - offset))
    last = tf.clip_by_value(last, first + 1.0, crop)
    per_pixel = lengths / (stop - start)
    taken = tf.clip_by_value(tf.round((last - first) * per_pixel), 1.0, lengths)
    source = tf.clip_by_value(tf.round((first - start) * per_pixel), 0.0, lengths - taken)

    before = tf.stack(
        [
            low if mirrored is None else tf.where(mirrored, side - high, low)
            for low, high, side, mirrored in zip(
                tf.unstack(first),
                tf.unstack(last),
                how.crop_size,
                (mirrored_rows, mirrored_columns),
                strict=True,
            )
        ]
    )
    if turned is not None:
        source, taken = (tf.where(turned, pair[::-1], pair) for pair in (source, taken))
    numbers = tf.cast(tf.stack([source, taken, before, last - first]), tf.int32)
    window = Window(*tf.unstack(numbers), turned=turned, mirrored=(mirrored_rows, mirrored_columns))
    return window, colour_draws


def _distortion(draws):
    """D-LinkNet's zoom and shift of rows and columns, as shares of the sides; none for half."""
    moved = draws[0] < 0.5
    zoom = 1.0 + MAX_ZOOM * (2.0 * draws[1] - 1.0)
    root = tf.sqrt(1.0 + MAX_ASPECT * (2.0 * draws[2] - 1.0))
    zoom = tf.where(moved, tf.stack([zoom / root, zoom * root]), tf.ones(2))
    shift = tf.where(moved, MAX_SHIFT * (2.0 * draws[3:5] - 1.0), tf.zeros(2))
    return zoom, shift


def _pick_scale(draw, min_scale: float, max_scale: float, scale_step: float):
    """A factor for a draw in [0, 1): one of the steps, or any value between if the step is 0."""
    if not scale_step:
        return min_scale + draw * (max_scale - min_scale)
    # The small term keeps a last step that rounding would lose, as in (2 - .5) / .1.
    count = math.floor((max_scale - min_scale) / scale_step + 1e-6) + 1
    return min_scale + scale_step * tf.floor(draw * count)
