"""The other forms of the averages against the one in kseg.layers."""

import numpy as np
import pytest
from keras import ops

from kseg.benchmark import plain
from kseg.layers.kernels.average_pool import average_pool
from tests import layer_checks

FORMS = [plain.line_average_pool, plain.prefix_sum_average_pool]


@pytest.mark.parametrize(
    ("form", "size", "pool_size"),
    [
        *((form, size, 5) for form in FORMS for size in ((7, 5), (6, 9))),
        *((form, (9, 12), 9) for form in FORMS),
        # The gradient of TensorFlow's pooling is wrong on some CPUs if the window exceeds the map.
        *((plain.prefix_sum_average_pool, size, 9) for size in ((4, 3), (1, 4), (1, 1))),
    ],
)
def test_equals_average_pool_in_value_and_gradient(form, size, pool_size):
    (features,) = layer_checks.random_inputs([(2, *size, 3)])
    ours, truth = (
        layer_checks.value_and_gradients(
            lambda features, pool=pool: [pool(features, pool_size)],
            layer_checks.to_numpy(features),
        )
        for pool in (form, average_pool)
    )
    np.testing.assert_allclose(ours[0][0], truth[0][0], atol=1e-5)
    np.testing.assert_allclose(ours[1][0], truth[1][0], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_result_has_the_precision_of_the_features(form, dtype):
    (features,) = layer_checks.random_inputs([(2, 9, 12, 3)])
    features = ops.cast(features, dtype)
    pooled, truth = form(features, 7), average_pool(features, 7)
    assert pooled.dtype == truth.dtype
    difference = ops.cast(pooled, "float32") - ops.cast(truth, "float32")
    assert float(ops.max(ops.abs(difference))) < 0.02
