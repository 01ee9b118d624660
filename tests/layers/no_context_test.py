"""NoContext: contract, example, laws, invalid arguments."""

import numpy as np
import pytest

from kseg.layers import NoContext
from tests import layer_checks


@pytest.mark.parametrize("image_pooling", [True, False])
def test_fulfils_the_contract_of_a_layer(image_pooling, tmp_path):
    layer_checks.check_layer(
        lambda **options: NoContext(4, image_pooling=image_pooling, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    layer_checks.run_docstring_example(NoContext)


def test_without_the_image_branch_a_pixel_depends_only_on_itself():
    features = np.ones((1, 5, 5, 3), "float32")
    elsewhere = features.copy()
    elsewhere[0, 4, 4] = 9.0
    for image_pooling in (True, False):
        layer = NoContext(8, image_pooling=image_pooling)
        before, after = (layer_checks.to_numpy(layer(x))[0, 0, 0] for x in (features, elsewhere))
        assert np.any(before != after) == image_pooling


def test_invalid_arguments_are_named():
    with pytest.raises(ValueError, match="`filters`"):
        NoContext(0)
