"""Augmentation: labels are picked and never mixed, stay with their pixels, and seeds decide all."""

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
    """A label of large squares, and an image drawn from it: level 10 * id in every channel."""
    label = np.kron(rng.integers(0, 20, (-(-height // 8), -(-width // 8))), np.ones((8, 8)))
    label = label[:height, :width].astype("uint8")
    return np.repeat(label[..., np.newaxis] * 10, 3, axis=-1), label


def ramp(height, width, axis):
    """A label that holds the number of the row or column, and an image drawn from it."""
    label = np.broadcast_to(
        np.expand_dims(np.arange((height, width)[axis]), 1 - axis), (height, width)
    ).astype("uint8")
    return np.repeat(label[..., np.newaxis], 3, axis=-1), label


def anything(rng):
    """Any fields of an augmentation."""
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
def test_no_id_appears_that_was_not_there_and_padding_is_ignored_and_grey(seed):
    rng = np.random.default_rng(seed)
    image, label = coarse_scene(rng, *rng.integers(1, 90, 2))
    label *= np.uint8(rng.integers(1, 10))  # neighbouring ids with gaps between them
    options = DEFAULTS | anything(rng)
    new_image, new_label = augmented(image, label, [seed, 3], **options)
    assert new_image.shape == (*options["crop_size"], 3) and new_image.dtype == np.float32
    assert new_label.shape == options["crop_size"] and new_label.dtype == np.uint8
    assert set(np.unique(new_label)) <= {*np.unique(label), 255}
    padding = new_label == 255
    np.testing.assert_array_equal(new_image[padding], np.broadcast_to(PAD, (padding.sum(), 3)))
    assert new_image.min() >= 0 and new_image.max() <= 255


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("axis", [0, 1])
def test_image_and_label_stay_registered(seed, axis):
    """Interpolated, the number of a row is where it was looked up; the label is its nearest row."""
    rng = np.random.default_rng(seed)
    image, label = ramp(60, 80, axis)
    options = anything(rng) | {"crop_size": (33, 49), "hsv": False}
    new_image, new_label = augmented(image, label, [seed, 0], **options)
    inside = new_label != 255
    assert inside.any()
    assert np.abs(new_image[..., 0] - new_label)[inside].max() <= 0.5 + 1e-3


def test_scale_one_without_flip_is_a_plain_crop():
    image, label = coarse_scene(np.random.default_rng(0), 60, 80)
    new_image, new_label = augmented(image, label, [1, 2], **PLAIN)
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
    _, label = ramp(100, 100, axis=1)
    image = np.zeros((100, 100, 3), "uint8")
    slopes = []
    for seed in range(80):
        _, new_label = augmented(image, label, [seed, 0], crop_size=(40, 40))
        slopes.append((float(new_label[0, 39]) - float(new_label[0, 0])) / 39)
    mirrored = np.mean(np.array(slopes) < 0)
    assert 0.3 < mirrored < 0.7
    scales = {round(4 / abs(slope)) / 4 for slope in slopes}
    assert scales == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}


def test_without_steps_every_scale_between_the_bounds_is_drawn():
    _, label = ramp(200, 200, axis=1)
    image = np.zeros((200, 200, 3), "uint8")
    scales = []
    for seed in range(80):
        options = {"crop_size": (9, 99), "flip": False, "scale_step": 0.0}
        _, new_label = augmented(image, label, [seed, 0], **options)
        scales.append(98 / (float(new_label[0, 98]) - float(new_label[0, 0])))
    # A crop tells its scale to within a source pixel: 4 % at 2, which covers 50 of them.
    assert 0.49 < min(scales) < 0.6 and 1.85 < max(scales) < 2.08
    ranks = np.sort(np.array(scales) - 0.5) / 1.5
    assert np.abs(ranks - np.linspace(0, 1, 80)).max() < 0.18  # As uniform numbers are.
    between = np.abs(np.array(scales) * 4 - np.round(np.array(scales) * 4)) / 4
    assert (between > 0.06).sum() > 20


def test_every_place_of_a_crop_is_drawn():
    _, label = ramp(12, 200, axis=0)
    image = np.zeros((12, 200, 3), "uint8")
    tops = [
        int(augmented(image, label, [seed, 1], crop_size=(10, 20), **PLAIN)[1][0, 0])
        for seed in range(60)
    ]
    assert set(tops) == {0, 1, 2}
    assert max(np.bincount(tops)) < 36


def test_scale_one_pads_a_small_image_below_and_right_as_gcn_does():
    image, label = coarse_scene(np.random.default_rng(0), 20, 30)
    new_image, new_label = augmented(image, label, [3, 4], **PLAIN)
    np.testing.assert_array_equal(new_label[:20, :30], label)
    np.testing.assert_array_equal(new_image[:20, :30], image)
    assert (new_label[20:] == 255).all() and (new_label[:, 30:] == 255).all()


def test_resize_to_crop_stretches_the_whole_image_as_ksac_does_for_ade20k():
    image, label = coarse_scene(np.random.default_rng(0), 61, 80)
    new_image, new_label = augmented(image, label, [3, 4], resize_to_crop=True, **PLAIN)
    np.testing.assert_array_equal(new_image, tf.image.resize(image, (33, 49)))
    nearest = tf.image.resize(label[..., np.newaxis], (33, 49), method="nearest")
    np.testing.assert_array_equal(new_label, nearest[..., 0])


def test_flips_and_quarter_turns_lay_an_image_in_eight_ways():
    image, label = coarse_scene(np.random.default_rng(0), 40, 40)
    ways = [np.rot90(way, turns) for way in (label, label[::-1]) for turns in range(4)]
    options = {**PLAIN, "flip": True, "vertical_flip": True, "quarter_turns": True}
    seen = set()
    for seed in range(60):
        new_image, new_label = augmented(image, label, [seed, 0], crop_size=(40, 40), **options)
        seen.add([np.array_equal(new_label, way) for way in ways].index(True))
        np.testing.assert_array_equal(new_image[..., 1], 10.0 * new_label)
    assert seen == set(range(8))


def test_a_quarter_turn_alone_is_a_rotation_of_images_of_any_form():
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


def test_the_spatial_transformation_keeps_to_its_limits():
    """Read off a ramp: where the columns went, and how wide they are."""
    size = 200
    image, label = ramp(size, size, axis=1)
    rows = ramp(size, size, axis=0)[1]
    moved, zooms, shifts = 0, [], []
    for seed in range(40):
        options = {"crop_size": (size, size), "spatial": True, **PLAIN}
        _, columns = augmented(image, label, [seed, 0], **options)
        _, other = augmented(image, rows, [seed, 0], **options)
        np.testing.assert_array_equal(columns == 255, other == 255)
        if np.array_equal(columns, label):
            continue
        moved += 1
        for line in (columns[size // 2], other[:, size // 2]):
            places = np.flatnonzero(line != 255)
            slope, start = np.polyfit(places, line[places].astype(float), 1)
            zooms.append(1 / slope)
            # Where the middle of the image went.
            shifts.append(((size - 1) / 2 - start) / slope - (size - 1) / 2)
    assert 10 < moved < 30
    limit = 1.1 * np.sqrt(1.1)
    assert 0.9 / np.sqrt(1.1) - 0.01 < min(zooms) < 0.95 and 1.05 < max(zooms) < limit + 0.01
    assert np.abs(shifts).max() < 0.1 * size + 1.5
    assert np.abs(shifts).max() > 0.05 * size


def test_colours_are_shifted_where_the_image_is_and_labels_do_not_notice():
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
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(options):
    image, label = coarse_scene(np.random.default_rng(0), 60, 80)
    seeds = ([4, 5], [4, 5], [4, 6])
    first, again, other = (augmented(image, label, seed, **options) for seed in seeds)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_encoded_image_gives_the_bytes_of_the_decoded_one(kind):
    rng = np.random.default_rng(0)
    image, label = coarse_scene(rng, 90, 120)
    image = np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    contents = tf.constant(shards.encoded(image, kind))
    whole = decode_image(contents)
    for options in ({}, ROADS | {"hsv": True}):
        how = Augmentation(**DEFAULTS | options)

        @tf.function
        def both(seed, how=how):
            encoded = augment.augment_encoded(contents, tf.constant(label), seed, how)
            return encoded, augment.augment(whole, tf.constant(label), seed, how)

        for seed in range(12):
            (image_a, label_a), (image_b, label_b) = both(tf.constant([seed, 0]))
            np.testing.assert_array_equal(image_a, image_b)
            np.testing.assert_array_equal(label_a, label_b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": (33,)}, "`crop_size` must be two sizes"),
        ({"crop_size": (33, 0)}, "`crop_size` must be two sizes"),
        ({"min_scale": 0.0}, "`min_scale` must be above 0"),
        ({"min_scale": 2.0, "max_scale": 1.0}, "at most `max_scale`. Received: 2.0 and 1.0"),
        ({"scale_step": -0.25}, "`scale_step` must not be negative. Received: -0.25"),
    ],
)
def test_refuses_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**DEFAULTS | options)


@pytest.mark.parametrize(
    ("size", "stride", "nearest"),
    [(513, 16, 513), (512, 16, 513), (500, 16, 497), (505, 16, 513), (504, 16, 497), (769, 8, 769),
     (3, 16, 17), (225, 32, 225), (240, 32, 225)],
)  # fmt: skip
def test_the_nearest_good_size(size, stride, nearest):
    assert augment.nearest_good_size(size, stride) == nearest


def test_a_crop_that_does_not_align_is_warned_of_with_the_nearest_good_one():
    with pytest.warns(UserWarning, match=r"Received: 512,500; nearest: 513,497"):
        augment.warn_about_crop_size((512, 500), 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augment.warn_about_crop_size((513, 497), 16)
