"""Networks that XLA compiles for few sizes: the same scores, and how often they are compiled."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.inference import scorer as module
from kseg.inference.compiled import CompiledNetwork, compiles
from kseg.inference.config import InferenceConfig
from kseg.inference.evaluator import Evaluator
from kseg.inference.predictor import Predictor
from kseg.inference.scorer import scorer
from kseg.inference.tiles import Tiling, blended
from kseg.layers.kernels import forms
from tests.inference.scorer_test import CLASSES, network, photograph

SIZES = ((9, 14), (17, 12), (24, 20), (20, 24), (8, 5), (21, 23), (10, 10), (24, 24))
LABELS = LabelSet(("a", "b", "c"), ((0, 0, 0),) * CLASSES)


@pytest.fixture
def compiled_sizes(monkeypatch):
    """The height and width of each compilation of a network."""
    sizes = []

    class Recording(CompiledNetwork):
        def __init__(self, network):
            def recorded(images):
                # A conditional traces the network without XLA, too.
                if forms._situation().xla:
                    sizes.append(tuple(images.shape[1:3]))
                return network(images)

            super().__init__(recorded)

    monkeypatch.setattr(module, "CompiledNetwork", Recording)
    return sizes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"eval_size": (24, 25)}, {(24, 25)}),
        (
            {"eval_size": (24, 25), "scales": (0.5, 1.0, 1.5), "flip": True},
            {(12, 13), (24, 25), (35, 37)},
        ),
        ({"eval_size": (24, 25), "tta": "dlinknet"}, {(24, 25), (25, 24)}),
        ({"window_size": (8, 9)}, {(8, 9)}),
        ({"window_size": (8, 9), "scales": (1.0, 2.0), "flip": True}, {(8, 9)}),
    ],
)
def test_images_of_many_sizes_compile_it_once_for_each_scale(options, expected, compiled_sizes):
    model = network()
    plain, ours = (
        tf.function(
            scorer(model, InferenceConfig(jit_compile=choice, **options)),
            input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
        )
        for choice in ("false", "true")
    )
    for size in SIZES:
        images = photograph(1, *size)
        np.testing.assert_allclose(ours(images), plain(images), atol=2e-5)
    assert ours.experimental_get_tracing_count() == 1
    assert len(compiled_sizes) == len(expected) and set(compiled_sizes) == expected


def test_an_evaluation_gives_the_same_classes(compiled_sizes):
    model = network()
    images = [photograph(1, *size) for size in SIZES]
    labels = [image[..., 0] % CLASSES for image in images]
    found = []
    for choice in ("true", "false"):
        evaluator = Evaluator(
            model, LABELS, InferenceConfig(eval_size=(24, 24), jit_compile=choice)
        )
        found.append(evaluator(list(zip(images, labels, strict=True)), shows_progress=False))
    np.testing.assert_array_equal(found[0].matrix, found[1].matrix)
    assert compiled_sizes == [(24, 24)]


def test_whole_tiles_are_compiled_and_cut_ones_are_not(compiled_sizes):
    model = network()
    tiling = Tiling(tile=(32, 64), overlap=0, stride=32)
    image = photograph(70, 150)
    parts = []
    for choice, tile in (("true", tiling.tile), ("false", None)):
        predictor = Predictor(model, InferenceConfig(jit_compile=choice), tile=tile)
        parts.append([part for _, _, part in blended(predictor.scores, image, tiling)])
    assert len({part.shape for part in parts[0]}) > 1, "some tiles are cut"
    for ours, plain in zip(*parts, strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5)
    assert compiled_sizes == [(32, 64)]


def test_predict_classes_compiles_its_tiles(compiled_sizes):
    model = network()
    image = photograph(70, 150)
    ours = model.predict_classes(image, tile=64, overlap=0, jit_compile="true")
    assert compiled_sizes == [(64, 64)]
    plain = model.predict_classes(image, tile=64, overlap=0)
    assert compiled_sizes == [(64, 64)]
    np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(
    ("options", "tile", "gpus", "expected"),
    [
        # On a GPU by itself, where there is a size; never for images of any size.
        ({}, None, 1, False),
        ({"scales": (0.5, 1.0)}, None, 1, False),
        ({"eval_size": (9, 9)}, None, 1, True),
        ({"window_size": (9, 9)}, None, 1, True),
        ({}, (32, 32), 1, True),
        ({"eval_size": (9, 9), "jit_compile": "false"}, None, 1, False),
        # On a CPU if it is demanded.
        ({"eval_size": (9, 9)}, None, 0, False),
        ({"eval_size": (9, 9), "jit_compile": "true"}, None, 0, True),
    ],
)
def test_where_the_network_is_compiled(options, tile, gpus, expected, monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind] * gpus)
    assert compiles(InferenceConfig(**options), tile) is expected


def test_demanding_xla_for_images_of_any_size_is_an_error():
    config = InferenceConfig(jit_compile="true")
    for make in (
        lambda: Evaluator(network(), LABELS, config),
        lambda: Predictor(network(), config),
    ):
        with pytest.raises(UserError, match="`--jit_compile=true` needs `--eval_size`"):
            make()
