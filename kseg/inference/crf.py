"""Refinement of class probabilities by a dense CRF, which sharpens borders between colours."""

import numpy as np

from kseg.errors import missing_extra

ITERATIONS = 10
# Smoothness: weight, and standard deviation in pixels.
SMOOTHNESS_WEIGHT, SMOOTHNESS_PIXELS = 3, 1
# Appearance: weight, and standard deviations in pixels and in RGB levels.
APPEARANCE_WEIGHT, APPEARANCE_PIXELS, APPEARANCE_LEVELS = 4, 67, 3


def require() -> None:
    """Raises `UserError` unless the package of the extra `crf` is installed."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError as error:
        raise missing_extra("crf", "`--crf`", error) from error


def refine(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Refines the probabilities of one image by mean-field inference.

    Args:
        image: uint8 `[height, width, 3]`, RGB.
        probabilities: float `[height, width, num_classes]`, summing to 1 at each pixel.

    Returns:
        float32 probabilities `[height, width, num_classes]`.

    Reference:
        Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials", 2011. The constants are those of DeepLabv2 for ResNet-101 on VOC, since GCN
        (Table 7) does not print its own.
    """
    from pydensecrf import densecrf, utils

    height, width, classes = probabilities.shape
    # The package accepts only C-ordered arrays. It does not change them.
    energy = utils.unary_from_softmax(
        np.ascontiguousarray(np.moveaxis(probabilities, -1, 0), np.float32)
    )
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(energy))
    field.addPairwiseGaussian(sxy=SMOOTHNESS_PIXELS, compat=SMOOTHNESS_WEIGHT)
    field.addPairwiseBilateral(
        sxy=APPEARANCE_PIXELS,
        srgb=APPEARANCE_LEVELS,
        rgbim=np.array(image, np.uint8, order="C"),
        compat=APPEARANCE_WEIGHT,
    )
    refined = np.array(field.inference(ITERATIONS), np.float32)
    return np.moveaxis(refined.reshape(classes, height, width), 0, -1)
