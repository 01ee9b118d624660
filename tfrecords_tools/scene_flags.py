"""The flags of `build_scenes`."""

from collections.abc import Sequence

import numpy as np
from absl import flags

from kseg.errors import UserError
from tfrecords_tools import layouts, scene_masks, splits


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("scenes", "", "Folder of the TIFFs, or a glob in quotes.")
    flags.DEFINE_string(
        "labels", "", "Vector file for all scenes, or folder with a mask or vector file for each."
    )
    flags.DEFINE_string("classes", "", "Text file with one class per line, as for build_folder.")
    flags.DEFINE_string("split", "train", "Name of the split.")
    flags.DEFINE_list("tile", ["512"], "Height,width of the tiles; one number for a square.")
    flags.DEFINE_integer("overlap", 64, "Pixels that neighbouring tiles share.", 0)
    flags.DEFINE_float(
        "min_labelled",
        0.0,
        "Tiles with a smaller fraction of labelled pixels are left out, as are tiles without any.",
        0,
        1,
    )
    flags.DEFINE_float(
        "keep_background",
        1.0,
        "Fraction that is kept of the tiles that show only background: the first class, or "
        "--outside. 0: such tiles are left out. The split of --val_fraction keeps all.",
        0,
        1,
    )
    flags.DEFINE_list(
        "bands", ["1", "2", "3"], "Numbers, from 1, of the bands for red, green and blue."
    )
    flags.DEFINE_list(
        "stretch",
        [],
        "Percentiles of the values of all scenes that become 0 and 255, as in 2,98, or min,max. "
        "Empty: values of uint8 stay.",
    )
    flags.DEFINE_list(
        "limits",
        [],
        "Values that become 0 and 255, in place of --stretch: low,high for all three bands, or "
        "such a pair for each.",
    )
    flags.DEFINE_string(
        "label_ending", None, "Ending of the names of masks in place of .tif, as in _mask.tif."
    )
    layouts.define_masks_are()
    flags.DEFINE_enum(
        "mask_nodata",
        "refuse",
        scene_masks.NODATA,
        "Pixels of a mask with its nodata value: ignored, or of the class with this id. refuse: "
        "an error if there is such a class, ignored otherwise.",
    )
    flags.DEFINE_string(
        "class_field", None, "Field of a vector file with the name or id of a class."
    )
    flags.DEFINE_string("layer", None, "Layer of a vector file that has several.")
    flags.DEFINE_string(
        "outside", None, "Class outside all polygons, or ignore. Default: the first class."
    )
    flags.DEFINE_bool(
        "all_touched", False, "A polygon covers all pixels that it touches, not only their centres."
    )
    splits.define_flags()
    layouts.define_conversion_flags()


def parse_bands(texts: Sequence[str]) -> tuple[int, ...]:
    """Returns the numbers of the three bands.

    Raises:
        UserError: The texts are not three numbers, from 1.
    """
    if len(texts) != 3 or not all(text.isdecimal() and int(text) for text in texts):
        raise UserError(
            "`--bands` must be three numbers of bands, counted from 1, for red, green and blue, as "
            f"in 4,3,2. Received: {','.join(texts)}"
        )
    return tuple(map(int, texts))


def parse_stretch(texts: Sequence[str]) -> tuple[float, float] | None:
    """Returns the lower and the upper percentile of a stretch; None without one.

    Args:
        texts: Two percentiles, or `min` and `max`, which stand for 0 and 100. Empty: no stretch.

    Raises:
        UserError: The texts are neither.
    """
    if not texts:
        return None
    if list(texts) == ["min", "max"]:
        return (0.0, 100.0)
    values = _numbers(texts)
    if values is None or len(values) != 2 or not 0 <= values[0] < values[1] <= 100:
        raise UserError(
            "`--stretch` must be two percentiles from 0 to 100, as in 2,98, or min,max. Values of "
            f"the scenes themselves are given by `--limits`. Received: {','.join(texts)}"
        )
    return values


def parse_limits(texts: Sequence[str]) -> tuple[tuple[float, float], ...] | None:
    """Returns a lower and an upper value for each of the three bands; None if none are given.

    Args:
        texts: Two values for all bands, or two for each of them in order.

    Raises:
        UserError: The texts are neither.
    """
    if not texts:
        return None
    values = _numbers(texts)
    if values is not None and len(values) in (2, 6):
        pairs = [(values[i], values[i + 1]) for i in range(0, len(values), 2)]
        if all(low < high for low, high in pairs):
            return tuple(pairs * (3 // len(pairs)))
    raise UserError(
        "`--limits` must be a lower and a higher value of the scenes, as in 0,3000, or one such "
        f"pair for each of the three bands. Received: {','.join(texts)}"
    )


def _numbers(texts: Sequence[str]) -> tuple[float, ...] | None:
    try:
        values = tuple(map(float, texts))
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None
