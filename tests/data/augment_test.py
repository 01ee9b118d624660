"""Augmentation: image and label stay aligned, ids are never interpolated, seeds fix the result."""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from kseg.data import augment
from kseg.data.augment import Augmentation
from kseg.data.records import decode_image
from tests.data import shards

PAD = (127.5, 100.0, 50.0)
DEFAULTS = {"crop_size": (33, 49), "pad_value": PAD, "ignore_label": 255}
PLAIN = {"min_scale": 1.0, "max_scale": 1.0, "flip": False}
ROADS = {
    "min_scale": 1.0, "max_scale": 1.0, "vertical_flip": True, "quarter_turns": True,
    "spatial": True,
}  # fmt: skip


def augmented(image, label, seed, **changes):
    image, label = augment.augment(
        tf.constant(image),
        tf.constant(label),
        tf.constant(seed),
        Augmentation(**DEFAULTS | changes),
    )
    return image.numpy(), label.numpy()


def coarse_scene(rng, height, width):
    """A label of large squares, and an image with the level 10 * id in every channel."""
    label = np.kron(rng.integers(0, 20, (-(-height // 8), -(-width // 8))), np.ones((8, 8)))
    label = label[:height, :width].astype("uint8")
    return np.repeat(label[..., np.newaxis] * 10, 3, axis=-1), label


def ramp(height, width, axis):
    """A label whose values are row or column numbers, and an image with the same values."""
    label = np.broadcast_to(
        np.expand_dims(np.arange((height, width)[axis]), 1 - axis), (height, width)
    ).astype("uint8")
    return np.repeat(label[..., np.newaxis], 3, axis=-1), label


def random_options(rng):
    """Random fields of an augmentation."""
    low, high = np.sort(rng.uniform(0.3, 2.5, 2))
    names = ("flip", "resize_to_crop", "vertical_flip", "quarter_turns", "spatial", "hsv")
    return {
        "crop_size": tuple(map(int, rng.integers(1, 70, 2))),
        "min_scale": float(low),
        "max_scale": float(high),
        "scale_step": float(rng.choice([0.0, 0.1, 0.25])),
        **{name: bool(rng.integers(2)) for name in names},
    }


@pytest.mark.parametrize("seed", range(40))
def test_no_new_id_appears_and_padding_has_its_label_and_colour(seed):
    rng = np.random.default_rng(seed)
    image, label = coarse_scene(rng, *rng.integers(1, 90, 2))
    label *= np.uint8(rng.integers(1, 10))  # Gaps between the ids would show interpolation.
    options = DEFAULTS | random_options(rng)
    new_image, new_label = augmented(image, label, [seed, 3], **options)
    assert new_image.shape == (*options["crop_size"], 3) and new_image.dtype == np.float32
    assert new_label.shape == options["crop_size"] and new_label.dtype == np.uint8
    assert set(np.unique(new_label)) <= {*np.unique(label), 255}
    padding = new_label == 255
    np.testing.assert_array_equal(new_image[padding], np.broadcast_to(PAD, (padding.sum(), 3)))
    assert new_image.min() >= 0 and new_image.max() <= 255


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("axis", [0, 1])
def test_image_and_label_stay_aligned(seed, axis):
    """The image is the interpolated row or column number, and the label the nearest one."""
    rng = np.random.default_rng(seed)
    image, label = ramp(60, 80, axis)
    options = random_options(rng) | {"crop_size": (33, 49), "hsv": False}
    new_image, new_label = augmented(image, label, [seed, 0], **options)
    inside = new_label != 255
    assert inside.any()
    assert np.abs(new_image[..., 0] - new_label)[inside].max() <= 0.5 + 1e-3


def test_scale_1_without_flip_is_a_plain_crop():
    image, label = coarse_scene(np.random.default_rng(0), 60, 80)
    new_image, new_label = augmented(image, label, [1, 2], **PLAIN)
    positions = [
        (top, left)
        for top in range(60 - 33 + 1)
        for left in range(80 - 49 + 1)
        if np.array_equal(label[top : top + 33, left : left + 49], new_label)
    ]
    assert positions
    top, left = positions[0]
    np.testing.assert_array_equal(new_image, image[top : top + 33, left : left + 49])


def test_half_of_the_crops_are_flipped_and_every_step_of_the_scale_is_drawn():
    _, label = ramp(100, 100, axis=1)
    image = np.zeros((100, 100, 3), "uint8")
    slopes = []
    for seed in range(80):
        _, new_label = augmented(image, label, [seed, 0], crop_size=(40, 40))
        slopes.append((float(new_label[0, 39]) - float(new_label[0, 0])) / 39)
    flipped = np.mean(np.array(slopes) < 0)
    assert 0.3 < flipped < 0.7
    scales = {round(4 / abs(slope)) / 4 for slope in slopes}
    assert scales == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}


def test_without_steps_scales_are_uniform_between_the_bounds():
    _, label = ramp(200, 200, axis=1)
    image = np.zeros((200, 200, 3), "uint8")
    scales = []
    for seed in range(80):
        options = {"crop_size": (9, 99), "flip": False, "scale_step": 0.0}
        _, new_label = augmented(image, label, [seed, 0], **options)
        scales.append(98 / (float(new_label[0, 98]) - float(new_label[0, 0])))
    # The scale of a crop is exact to one source pixel: 4 % at scale 2, where it covers 50 of them.
    assert 0.49 < min(scales) < 0.6 and 1.85 < max(scales) < 2.08
    ranks = np.sort(np.array(scales) - 0.5) / 1.5
    assert np.abs(ranks - np.linspace(0, 1, 80)).max() < 0.18  # Uniformly distributed.
    between = np.abs(np.array(scales) * 4 - np.round(np.array(scales) * 4)) / 4
    assert (between > 0.06).sum() > 20


def test_every_position_of_a_crop_is_drawn():
    _, label = ramp(12, 200, axis=0)
    image = np.zeros((12, 200, 3), "uint8")
    tops = [
        int(augmented(image, label, [seed, 1], crop_size=(10, 20), **PLAIN)[1][0, 0])
        for seed in range(60)
    ]
    assert set(tops) == {0, 1, 2}
    assert max(np.bincount(tops)) < 36


def test_scale_1_pads_a_small_image_below_and_right_as_in_gcn():
    image, label = coarse_scene(np.random.default_rng(0), 20, 30)
    new_image, new_label = augmented(image, label, [3, 4], **PLAIN)
    np.testing.assert_array_equal(new_label[:20, :30], label)
    np.testing.assert_array_equal(new_image[:20, :30], image)
    assert (new_label[20:] == 255).all() and (new_label[:, 30:] == 255).all()


def test_resize_to_crop_resizes_the_whole_image_as_ksac_does_for_ade20k():
    image, label = coarse_scene(np.random.default_rng(0), 61, 80)
    new_image, new_label = augmented(image, label, [3, 4], resize_to_crop=True, **PLAIN)
    np.testing.assert_array_equal(new_image, tf.image.resize(image, (33, 49)))
    nearest = tf.image.resize(label[..., np.newaxis], (33, 49), method="nearest")
    np.testing.assert_array_equal(new_label, nearest[..., 0])


def test_flips_and_quarter_turns_give_the_eight_symmetries_of_a_square():
    image, label = coarse_scene(np.random.default_rng(0), 40, 40)
    symmetries = [np.rot90(x, turns) for x in (label, label[::-1]) for turns in range(4)]
    options = {**PLAIN, "flip": True, "vertical_flip": True, "quarter_turns": True}
    seen = set()
    for seed in range(60):
        new_image, new_label = augmented(image, label, [seed, 0], crop_size=(40, 40), **options)
        seen.add([np.array_equal(new_label, x) for x in symmetries].index(True))
        np.testing.assert_array_equal(new_image[..., 1], 10.0 * new_label)
    assert seen == set(range(8))


def test_a_quarter_turn_alone_rotates_images_that_are_not_square():
    image, label = coarse_scene(np.random.default_rng(0), 24, 40)
    seen = set()
    for seed in range(12):
        _, new_label = augmented(
            image, label, [seed, 0], crop_size=(40, 40), quarter_turns=True, **PLAIN
        )
        turned = bool((new_label[:, 24:] == 255).all())
        expected = np.rot90(label) if turned else label
        np.testing.assert_array_equal(new_label[: expected.shape[0], : expected.shape[1]], expected)
        seen.add(turned)
    assert seen == {False, True}


def test_the_spatial_transformation_stays_within_its_limits():
    """Ramps of row and column numbers show where the pixels were moved."""
    size = 200
    image, label = ramp(size, size, axis=1)
    row_label = ramp(size, size, axis=0)[1]
    moved, zooms, shifts = 0, [], []
    for seed in range(40):
        options = {"crop_size": (size, size), "spatial": True, **PLAIN}
        _, columns = augmented(image, label, [seed, 0], **options)
        _, rows = augmented(image, row_label, [seed, 0], **options)
        np.testing.assert_array_equal(columns == 255, rows == 255)
        if np.array_equal(columns, label):
            continue
        moved += 1
        for line in (columns[size // 2], rows[:, size // 2]):
            inside = np.flatnonzero(line != 255)
            slope, start = np.polyfit(inside, line[inside].astype(float), 1)
            zooms.append(1 / slope)
            # The displacement of the centre of the image.
            shifts.append(((size - 1) / 2 - start) / slope - (size - 1) / 2)
    assert 10 < moved < 30
    limit = 1.1 * np.sqrt(1.1)
    assert 0.9 / np.sqrt(1.1) - 0.01 < min(zooms) < 0.95 and 1.05 < max(zooms) < limit + 0.01
    assert np.abs(shifts).max() < 0.1 * size + 1.5
    assert np.abs(shifts).max() > 0.05 * size


def test_colours_are_shifted_inside_the_image_and_labels_do_not_change():
    rng = np.random.default_rng(0)
    image, label = coarse_scene(rng, 40, 50)
    image = rng.integers(0, 256, image.shape, np.uint8)
    differ = 0
    for seed in range(12):
        without, same_label = augmented(image, label, [seed, 0], **ROADS)
        new_image, new_label = augmented(image, label, [seed, 0], **ROADS, hsv=True)
        np.testing.assert_array_equal(new_label, same_label)
        np.testing.assert_array_equal(new_image[new_label == 255], without[new_label == 255])
        differ += bool(np.abs(new_image - without).max() > 1)
    assert 1 < differ < 11


@pytest.mark.parametrize("options", [{}, ROADS | {"hsv": True}], ids=["base", "roads"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(options):
    image, label = coarse_scene(np.random.default_rng(0), 60, 80)
    seeds = ([4, 5], [4, 5], [4, 6])
    first, again, different = (augmented(image, label, seed, **options) for seed in seeds)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], different[0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_encoded_image_gives_the_same_bytes_as_the_decoded_image(kind):
    rng = np.random.default_rng(0)
    image, label = coarse_scene(rng, 90, 120)
    image = np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    contents = tf.constant(shards.encoded(image, kind))
    decoded = decode_image(contents)
    for options in ({}, ROADS | {"hsv": True}):
        augmentation = Augmentation(**DEFAULTS | options)

        @tf.function
        def both(seed, augmentation=augmentation):
            encoded = augment.augment_encoded(contents, tf.constant(label), seed, augmentation)
            return encoded, augment.augment(decoded, tf.constant(label), seed, augmentation)

        for seed in range(12):
            (image_a, label_a), (image_b, label_b) = both(tf.constant([seed, 0]))
            np.testing.assert_array_equal(image_a, image_b)
            np.testing.assert_array_equal(label_a, label_b)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("crop_size", {"crop_size": (33,)}),
        ("crop_size", {"crop_size": (33, 0)}),
        ("min_scale", {"min_scale": 0.0}),
        ("max_scale", {"min_scale": 2.0, "max_scale": 1.0}),
        ("scale_step", {"scale_step": -0.25}),
    ],
)
def test_an_invalid_augmentation_is_rejected(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Augmentation(**DEFAULTS | options)


@pytest.mark.parametrize(
    ("size", "stride", "nearest"),
    [(513, 16, 513), (512, 16, 513), (500, 16, 497), (505, 16, 513), (504, 16, 497), (769, 8, 769),
     (3, 16, 17), (225, 32, 225), (240, 32, 225)],
)  # fmt: skip
def test_the_nearest_aligned_size(size, stride, nearest):
    assert augment.nearest_aligned_size(size, stride) == nearest


def test_a_crop_that_is_not_aligned_causes_a_warning_with_the_nearest_aligned_size():
    with pytest.warns(UserWarning, match=r"`crop_size`.*513,497"):
        augment.warn_about_crop_size((512, 500), 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augment.warn_about_crop_size((513, 497), 16)
