"""GCNContext: contract, example, laws, refusals."""

import re

import numpy as np
import pytest
from keras import ops

from kseg.layers.gcn_context import GCNContext
from tests import layer_checks


def test_keeps_the_contract(tmp_path):
    layer_checks.check_layer(
        lambda **options: GCNContext(4, kernel_size=3, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_example_runs():
    layer_checks.run_docstring_example(GCNContext)


def test_is_its_gcn_normalised_and_rectified():
    layer = GCNContext(4, kernel_size=5)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 3)])
    outputs = layer_checks.to_numpy(layer(features, training=True))
    scores = layer_checks.to_numpy(layer.gcn(features))
    axes = (0, 1, 2)
    normalized = (scores - scores.mean(axes)) / np.sqrt(scores.var(axes) + 1e-5)
    np.testing.assert_allclose(outputs, np.maximum(normalized, 0), atol=1e-3)
    # The mean was moved by a hundredth of the way, so inference is near the bare ReLU.
    layer.norm.moving_mean.assign(ops.zeros(4))
    layer.norm.moving_variance.assign(ops.ones(4))
    outputs = layer_checks.to_numpy(layer(features))
    np.testing.assert_allclose(outputs, np.maximum(scores, 0) / np.sqrt(1 + 1e-5), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "`filters` must be an integer >= 1. Received: 0"),
        ({"kernel_size": 6}, "`kernel_size` must be odd. Received: 6"),
    ],
)
def test_refuses_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GCNContext(**options)
