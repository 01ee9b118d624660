"""The scenes of the demo: what is drawn, how they are stored, and that colour is not enough."""

import numpy as np
import pytest
from PIL import Image

from kseg.demo import scenes as demo_scenes
from kseg.demo.baseline import nearest_mean_colour


def test_a_scene_depends_only_on_its_seed_and_number():
    image, labels = demo_scenes.draw_scene(3, 7)
    demo_scenes.draw_scene(3, 8)
    again, labels_again = demo_scenes.draw_scene(3, 7)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert (demo_scenes.draw_scene(4, 7)[0] != image).any()
    assert (demo_scenes.draw_scene(3, 8)[0] != image).any()


def test_scenes_contain_every_class_and_thin_ignored_edges():
    labels = np.stack([demo_scenes.draw_scene(0, index)[1] for index in range(12)])
    fractions = np.bincount(labels.ravel(), minlength=256) / labels.size
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, 255}
    assert (fractions[:5] > 0.03).all(), f"a class is rare: {fractions[:5]}"
    assert fractions[255] < 0.12


def test_mean_colours_do_not_separate_the_classes():
    scenes = [demo_scenes.draw_scene(0, index) for index in range(24)]
    images, labels = (np.stack(part) for part in zip(*scenes, strict=True))
    colours = np.stack([images[labels == label].mean(0) for label in range(5)])
    predicted = nearest_mean_colour(images, colours)
    iou = []
    for label in range(5):
        positive, true = (predicted == label) & (labels != 255), labels == label
        iou.append((positive & true).sum() / (positive | true).sum())
    assert np.mean(iou) < 0.5


def test_scenes_are_stored_in_the_layout_of_voc(tmp_path):
    demo_scenes.write_scenes(tmp_path, train=2, val=1, seed=5)
    names = demo_scenes.scene_names(tmp_path, "train")
    assert len(names) == 2 and len(demo_scenes.scene_names(tmp_path, "val")) == 1
    image, labels = demo_scenes.draw_scene(5, 1)
    with Image.open(tmp_path / "SegmentationClass" / f"{names[1]}.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), labels)
        assert tuple(mask.getpalette()[:3]) == demo_scenes.SCENES.colours[0]
    with Image.open(tmp_path / "JPEGImages" / f"{names[1]}.jpg") as photograph:
        assert photograph.format == "JPEG"
        difference = np.asarray(photograph, np.float32) - image
    assert np.abs(difference).mean() < 12


@pytest.mark.parametrize("pixel", [(0, 0, 0), (255, 255, 255), (10, 200, 30)])
def test_the_nearest_colour_wins_and_absent_classes_never_do(pixel):
    colours = np.array([(0, 0, 0), (np.nan,) * 3, (250, 250, 250), (0, 180, 0)])
    expected = {(0, 0, 0): 0, (255, 255, 255): 2, (10, 200, 30): 3}[pixel]
    assert nearest_mean_colour(np.array([[pixel]], np.uint8), colours) == [[expected]]
