"""All context modules: weight files know the number of rates, feature maps have pixels."""

import h5py
import keras
import numpy as np
import pytest

from kseg.layers import ASPP, KSAC, VortexPooling
from kseg.models import CONTEXTS
from tests.layer_checks import to_numpy


def model_of(module_class, rates):
    features = keras.Input((None, None, 5))
    return keras.Model(features, module_class(4, dilation_rates=rates, name="context")(features))


@pytest.mark.one_backend
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("module_class", [KSAC, ASPP, VortexPooling])
def test_a_weight_file_fits_other_rates_but_not_another_number_of_rates(module_class, tmp_path):
    trained, wider, fewer = (
        model_of(module_class, rates) for rates in ((1, 3, 5), (3, 5, 7), (1, 3))
    )
    path = tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    wider.load_weights(path)
    for loaded, saved in zip(wider.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(loaded), to_numpy(saved))
    with pytest.raises(
        ValueError, match=rf"`dilation_rates`.*3 rates.*'context'.*{module_class.__name__}"
    ):
        fewer.load_weights(path)


@pytest.mark.one_backend
@pytest.mark.parametrize("module_class", [KSAC, ASPP])
def test_an_older_weight_file_without_the_number_of_rates_still_loads(module_class, tmp_path):
    trained, wider = (model_of(module_class, rates) for rates in ((1, 3), (2, 4)))
    path = tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    entries = []
    with h5py.File(path, "a") as file:
        file.visit(lambda name: entries.append(name) if "number_of_rates" in name else None)
        assert len(entries) == 1
        del file[entries[0]]
    wider.load_weights(path)
    np.testing.assert_array_equal(to_numpy(wider.weights[0]), to_numpy(trained.weights[0]))


@pytest.mark.one_backend
@pytest.mark.parametrize("name", CONTEXTS)
def test_features_without_pixels_are_an_error_in_build_and_in_call(name):
    with pytest.raises(ValueError, match=r"\(1, 0, 5, 8\)"):
        CONTEXTS[name](4).build((1, 0, 5, 8))
    module = CONTEXTS[name](4)
    module.build((None, None, None, 8))
    with pytest.raises(ValueError, match=r"\(1, 5, 0, 8\)"):
        module(np.zeros((1, 5, 0, 8), "float32"))
