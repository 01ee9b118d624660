"""GCNContext: contract, example, laws, invalid arguments."""

import numpy as np
import pytest
from keras import ops

from kseg.layers.gcn_context import GCNContext
from tests import layer_checks


def test_fulfils_the_contract_of_a_layer(tmp_path):
    layer_checks.check_layer(
        lambda **options: GCNContext(4, kernel_size=3, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    layer_checks.run_docstring_example(GCNContext)


def test_equals_its_gcn_followed_by_normalisation_and_relu():
    layer = GCNContext(4, kernel_size=5)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 3)])
    outputs = layer_checks.to_numpy(layer(features, training=True))
    scores = layer_checks.to_numpy(layer.gcn(features))
    axes = (0, 1, 2)
    normalized = (scores - scores.mean(axes)) / np.sqrt(scores.var(axes) + 1e-5)
    np.testing.assert_allclose(outputs, np.maximum(normalized, 0), atol=1e-3)
    # With statistics of 0 and 1, inference is the ReLU alone.
    layer.norm.moving_mean.assign(ops.zeros(4))
    layer.norm.moving_variance.assign(ops.ones(4))
    outputs = layer_checks.to_numpy(layer(features))
    np.testing.assert_allclose(outputs, np.maximum(scores, 0) / np.sqrt(1 + 1e-5), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("filters", {"filters": 0}),
        ("kernel_size", {"kernel_size": 6}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        GCNContext(**options)
