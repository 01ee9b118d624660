"""Classes and colours."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import VOC, LabelSet, voc_palette

BLACK_WHITE = ((0, 0, 0), (255, 255, 255))


def test_the_palette_is_that_of_the_development_kit():
    palette = voc_palette()
    assert len(set(palette)) == 256
    assert palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert palette[15] == (192, 128, 128)
    assert palette[20] == (0, 64, 128)
    assert palette[255] == (224, 224, 192)
    assert voc_palette(5) == palette[:5]


def test_the_palette_is_that_of_real_masks(real_data):
    path = sorted((real_data / "voc_animals" / "SegmentationClass").glob("*.png"))[0]
    with Image.open(path) as mask:
        stored = np.reshape(mask.getpalette("RGB"), (-1, 3))
    np.testing.assert_array_equal(stored, voc_palette()[: len(stored)])


def test_voc_has_twenty_one_classes_in_the_order_of_their_ids():
    assert VOC.num_classes == 21
    assert VOC.ignore_label == 255
    assert (VOC.names[0], VOC.names[8], VOC.names[15], VOC.names[20]) == (
        "background",
        "cat",
        "person",
        "tvmonitor",
    )
    assert VOC.colours == voc_palette(21)


def test_lists_become_tuples_so_that_a_label_set_can_be_compared_and_hashed():
    one = LabelSet(["a", "b"], [[0, 0, 0], [255, 255, 255]])
    assert one == LabelSet(("a", "b"), BLACK_WHITE)
    assert hash(one) == hash(LabelSet(("a", "b"), BLACK_WHITE))


@pytest.mark.parametrize(
    ("names", "colours", "ignore", "message"),
    [
        ((), (), 255, "1 to 255 classes. Received: 0"),
        (("a", "a"), BLACK_WHITE, 255, r"Repeated: \['a'\]"),
        (("a", " "), BLACK_WHITE, 255, "not empty. Received: ' '"),
        (("a", "b\n"), BLACK_WHITE, 255, "printable"),
        (("a", "b", "c"), BLACK_WHITE, 255, r"as many as `names` \(3\). Received: 2"),
        (("a", "b"), ((0, 0, 0), (0, 0, 256)), 255, r"0..255. Received: \(0, 0, 256\)"),
        (("a", "b"), ((0, 0, 0), (0, 0)), 255, "triples"),
        (("a", "b"), BLACK_WHITE, 1, "number of classes.*Received: 1"),
        (("a", "b"), BLACK_WHITE, 256, "Received: 256"),
    ],
)
def test_a_label_set_refuses(names, colours, ignore, message):
    with pytest.raises(ValueError, match=message):
        LabelSet(names, colours, ignore)


def test_the_palette_refuses_more_than_256_colours():
    with pytest.raises(ValueError, match="`size` must lie between 0 and 256. Received: 257"):
        voc_palette(257)


def test_the_module_needs_no_tensorflow():
    code = "import sys, kseg.data.datasets; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
