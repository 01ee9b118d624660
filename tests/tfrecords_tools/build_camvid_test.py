"""CamVid: eleven classes, void is ignored."""

import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import CAMVID
from tests.tfrecords_tools import folders
from tfrecords_tools import build_camvid, check_records


@pytest.mark.slow
def test_all_real_frames_of_camvid_are_converted(real_data, tmp_path):
    raw = real_data / "camvid"
    manifests = build_camvid.build(raw, tmp_path)
    assert [(m.split, m.num_examples) for m in manifests] == [("train", 367), ("val", 101)]
    assert [result.problems for result in check_records.check(tmp_path)] == [[], []]
    for manifest in manifests:
        assert manifest.label_set() == CAMVID
        masks = [np.asarray(Image.open(p)) for p in (raw / f"{manifest.split}annot").iterdir()]
        pixels = np.bincount(np.concatenate(masks, axis=None), minlength=12)
        assert (*manifest.pixels_per_class, manifest.pixels_ignored) == tuple(pixels)


def test_the_frames_for_testing_are_converted_on_request(tmp_path):
    for folder, make in (("test", folders.image), ("testannot", folders.mask)):
        make(tmp_path / "raw" / folder / "a.png")
    manifest = build_camvid.build(tmp_path / "raw", tmp_path / "out", splits=["test"])[0]
    assert (manifest.num_examples, manifest.pixels_per_class[0]) == (1, 108)
