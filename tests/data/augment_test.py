"""Scale, pad, crop and flip: labels are picked and never mixed, and stay with their pixels."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.data.augment import random_scale_crop_flip

PAD = (127.5, 100.0, 50.0)
DEFAULTS = {
    "crop_size": (33, 49), "min_scale": 0.5, "max_scale": 2.0, "scale_step": 0.25,
    "flip": True, "pad_value": PAD, "ignore_label": 255,
}  # fmt: skip


def augmented(image, label, seed, **changes):
    image, label = random_scale_crop_flip(
        tf.constant(image), tf.constant(label), tf.constant(seed), **DEFAULTS | changes
    )
    return image.numpy(), label.numpy()


def coarse_scene(rng, height, width):
    """A label of large squares, and an image drawn from it: level 10 * id in every channel."""
    label = np.kron(rng.integers(0, 20, (-(-height // 8), -(-width // 8))), np.ones((8, 8)))
    label = label[:height, :width].astype("uint8")
    return np.repeat(label[..., np.newaxis] * 10, 3, axis=-1), label


@pytest.mark.parametrize("seed", range(12))
def test_labels_are_never_mixed_and_padding_is_ignored_and_grey(seed):
    rng = np.random.default_rng(seed)
    image, label = coarse_scene(rng, *rng.integers(5, 90, 2))
    new_image, new_label = augmented(image, label, [seed, 3], scale_step=rng.choice([0, 0.25]))
    assert new_image.shape == (33, 49, 3) and new_label.shape == (33, 49)
    assert set(np.unique(new_label)) <= {*np.unique(label), 255}
    padding = new_label == 255
    np.testing.assert_allclose(new_image[padding], np.broadcast_to(PAD, (padding.sum(), 3)))


@pytest.mark.parametrize("seed", range(8))
def test_image_and_label_stay_registered(seed):
    image, label = coarse_scene(np.random.default_rng(seed), 60, 80)
    new_image, new_label = augmented(image, label, [seed, 0])
    inside = new_label != 255
    agree = np.abs(new_image[..., 0] / 10 - new_label) < 0.5
    # Bilinear interpolation mixes levels along the edges of the squares only.
    assert agree[inside].mean() > 0.7


def test_scale_one_without_flip_is_a_plain_crop():
    image, label = coarse_scene(np.random.default_rng(0), 60, 80)
    new_image, new_label = augmented(image, label, [1, 2], min_scale=1.0, max_scale=1.0, flip=False)
    places = [
        (top, left)
        for top in range(60 - 33 + 1)
        for left in range(80 - 49 + 1)
        if np.array_equal(label[top : top + 33, left : left + 49], new_label)
    ]
    assert places
    top, left = places[0]
    np.testing.assert_array_equal(new_image, image[top : top + 33, left : left + 49])


def test_half_of_the_crops_are_mirrored_and_every_scale_of_the_steps_is_drawn():
    label = np.tile(np.arange(100, dtype="uint8"), (100, 1))
    image = np.zeros((100, 100, 3), "uint8")
    slopes = []
    for seed in range(80):
        _, new_label = augmented(image, label, [seed, 0], crop_size=(40, 40))
        slopes.append((float(new_label[0, 39]) - float(new_label[0, 0])) / 39)
    mirrored = np.mean(np.array(slopes) < 0)
    assert 0.3 < mirrored < 0.7
    scales = {round(4 / abs(slope)) / 4 for slope in slopes}
    assert scales == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others():
    image, label = coarse_scene(np.random.default_rng(0), 60, 80)
    first, again, other = (augmented(image, label, seed) for seed in ([4, 5], [4, 5], [4, 6]))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
