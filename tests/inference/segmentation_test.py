"""`Segmenter.predict_classes` and `overlay`: all sizes, images and batches, all options."""

import keras
import numpy as np
import pytest

from kseg.errors import UserError
from kseg.inference.config import InferenceConfig
from kseg.inference.predictor import Predictor
from kseg.inference.tiles import Tiling, blended
from kseg.models import Segmenter, deeplab_v3_plus
from tests.backbones.networks import scramble
from tests.models.networks import tiny_backbone
from tests.predict.networks import bright_network
from tests.program_calls import run_script
from tests.runs.distribution_test import needs_jax


def photograph(*shape, seed=0):
    """Returns an image, or a batch of images, of random blocks of 8x8 pixels."""
    *batch, height, width = shape
    size = (*batch, height // 8 + 1, width // 8 + 1, 3)
    blocks = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    return blocks.repeat(8, -3).repeat(8, -2)[..., :height, :width, :]


@pytest.fixture(scope="module")
def network():
    network = deeplab_v3_plus(
        4, backbone=tiny_backbone(16), context="none", filters=8, image_pooling=False, decoder=False
    )
    scramble(network)
    return network


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 64)])
def test_an_image_of_any_size_gets_the_class_of_each_pixel(size):
    image = photograph(*size)
    classes = bright_network(1).predict_classes(image)
    np.testing.assert_array_equal(classes, image[..., 0] > 127.5)
    assert classes.dtype == np.uint8


def test_a_batch_gets_the_classes_of_its_images(network):
    images = photograph(3, 40, 50)
    batch = network.predict_classes(images)
    assert batch.shape == (3, 40, 50)
    for image, classes in zip(images, batch, strict=True):
        np.testing.assert_array_equal(network.predict_classes(image), classes)


def test_a_network_with_auxiliary_logits_has_the_classes_of_the_one_without():
    network = deeplab_v3_plus(
        4, backbone=tiny_backbone(4, 16), context="none", filters=8, auxiliary=True
    )
    scramble(network)
    image = photograph(33, 47)
    classes = network.predict_classes(image)
    assert classes.shape == (33, 47)
    np.testing.assert_array_equal(classes, network.without_auxiliary().predict_classes(image))


@needs_jax
@pytest.mark.slow
def test_it_also_has_these_classes_on_jax(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    run_script(
        "import numpy as np\n"
        "from kseg.models import deeplab_v3_plus\n"
        "from tests.models.networks import tiny_backbone\n"
        "backbone = tiny_backbone(4, 16)\n"
        "options = {'context': 'none', 'filters': 8, 'auxiliary': True}\n"
        "network = deeplab_v3_plus(4, backbone=backbone, **options)\n"
        "image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)\n"
        "classes = network.predict_classes(image)\n"
        "expected = network.without_auxiliary().predict_classes(image)\n"
        "np.testing.assert_array_equal(classes, expected)\n"
    )


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (0.5, 1.0), "flip": True},
        {"scales": [0.75], "average": "logits", "flip": True},
        {"tta": "dlinknet"},
        {"window_size": 33, "window_stride": (16, 20)},
        {"eval_size": np.int64(81)},
    ],
)
def test_options_are_the_fields_of_the_inference_config(network, options):
    image = photograph(50, 60)
    expected = Predictor(network, InferenceConfig(**options)).classes(image)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(network.predict_classes(image, **options), expected)


def test_tiled_images_get_the_classes_of_the_blended_scores(network):
    image = photograph(150, 130)
    classes = network.predict_classes(image, tile=64, overlap=16)
    expected = np.empty((150, 130), np.uint8)
    predictor = Predictor(network)
    for rows, columns, scores in blended(predictor.scores, image, Tiling.of(network, (64,), 16)):
        expected[rows, columns] = scores.argmax(-1)
    np.testing.assert_array_equal(classes, expected)
    same = network.predict_classes(image, tile=np.int64(64), overlap=np.int64(16))
    np.testing.assert_array_equal(same, expected)


def test_repeated_calls_do_not_trace_the_network_again(network):
    network.predict_classes(photograph(20, 30))
    predictors = vars(network)["_predictors"]
    before = len(predictors)
    network.predict_classes(photograph(31, 20))
    assert len(predictors) == before
    predictor = predictors[InferenceConfig(), None]
    assert predictor._classify.experimental_get_tracing_count() == 1


def test_only_the_newest_predictors_are_kept():
    network = bright_network(1)
    for number in range(12):
        network.predict_classes(photograph(3, 4), eval_size=10 + number)
    sizes = [config.eval_size[0] for config, _ in vars(network)["_predictors"]]
    assert sizes == list(range(14, 22))


def test_the_overlay_mixes_the_image_with_the_colours_of_the_classes():
    network = bright_network(1)
    network.set_classes(("dark", "bright"), ((0, 0, 0), (200, 100, 0)))
    image = photograph(9, 12)
    classes = network.predict_classes(image)
    np.testing.assert_array_equal(network.overlay(image, alpha=0.0), image)
    colours = np.array(network.class_colours, np.uint8)[classes]
    np.testing.assert_array_equal(network.overlay(image, alpha=1.0), colours)
    half = network.overlay(image).astype(int)
    assert np.abs(half - (image.astype(int) + colours) / 2).max() <= 1


def test_a_network_without_colours_uses_those_of_voc():
    image = photograph(9, 12)
    assert bright_network(1).overlay(image, alpha=1.0).max() == 128


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("images", lambda network: network.predict_classes(photograph(4, 5).astype("float32"))),
        ("images", lambda network: network.predict_classes(photograph(4, 5)[..., :2])),
        ("images", lambda network: network.predict_classes(photograph(4, 5)[:0])),
        ("image", lambda network: network.overlay(photograph(2, 4, 5))),
        ("alpha", lambda network: network.overlay(photograph(4, 5), alpha=2)),
        ("overlap", lambda network: network.predict_classes(photograph(4, 5), overlap=16)),
        ("--tile", lambda network: network.predict_classes(photograph(4, 5), tile=64.0)),
        ("--tile", lambda network: network.predict_classes(photograph(4, 5), tile="128")),
        (
            "--overlap",
            lambda network: network.predict_classes(photograph(4, 5), tile=256, overlap=32.0),
        ),
        ("--scales", lambda network: network.predict_classes(photograph(4, 5), scales=(0.0,))),
        ("--scales", lambda network: network.predict_classes(photograph(4, 5), scales="0.5")),
        (
            "output_stride",
            lambda network: network.predict_classes(photograph(4, 5), output_stride=8),
        ),
        (
            "--eval_size",
            lambda network: network.predict_classes(photograph(9, 5), eval_size=(8, 8)),
        ),
    ],
)
def test_invalid_arguments_are_named(name, call):
    with pytest.raises(UserError, match=name):
        call(bright_network(1))


def test_the_error_is_a_value_error():
    with pytest.raises(ValueError, match="images"):
        bright_network(1).predict_classes("photo.jpg")


def test_ids_of_more_than_256_classes_do_not_fit_into_uint8():
    images = keras.Input((None, None, 3))
    with pytest.raises(UserError, match="`segmenter`.*256.*257"):
        Segmenter(images, keras.layers.Conv2D(257, 1)(images)).predict_classes(photograph(2, 3))


def test_a_user_defined_network_can_be_a_segmenter():
    images = keras.Input((None, None, 3))
    logits = keras.layers.Conv2D(3, 3, padding="same")(images)
    classes = Segmenter(images, logits).predict_classes(photograph(7, 9))
    assert classes.shape == (7, 9) and classes.max() < 3
