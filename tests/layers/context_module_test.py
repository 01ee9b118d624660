"""What all context modules keep to: weight files know the number of rates, maps have pixels."""

import h5py
import keras
import numpy as np
import pytest

from kseg.layers import ASPP, KSAC, VortexPooling
from kseg.models import CONTEXTS
from tests.layer_checks import to_numpy


def model_of(module, rates):
    features = keras.Input((None, None, 5))
    return keras.Model(features, module(4, dilation_rates=rates, name="context")(features))


@pytest.mark.one_backend
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("variant", [KSAC, ASPP, VortexPooling])
def test_a_weight_file_fits_other_rates_but_not_another_number_of_them(module, tmp_path):
    trained, other, fewer = (model_of(module, rates) for rates in ((1, 3, 5), (3, 5, 7), (1, 3)))
    path = tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    other.load_weights(path)
    for ours, theirs in zip(other.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))
    message = (
        rf"`dilation_rates` must hold 3 rates, as many as {module.__name__} 'context' was saved "
        r"with: every rate has weights of its own .* Received: \(1, 3\)"
    )
    with pytest.raises(ValueError, match=message):
        fewer.load_weights(path)


@pytest.mark.one_backend
@pytest.mark.parametrize("variant", [KSAC, ASPP])
def test_a_weight_file_that_does_not_know_the_number_still_loads(module, tmp_path):
    trained, other = (model_of(module, rates) for rates in ((1, 3), (2, 4)))
    path = tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    entries = []
    with h5py.File(path, "a") as file:
        file.visit(lambda name: entries.append(name) if "number_of_rates" in name else None)
        assert len(entries) == 1
        del file[entries[0]]
    other.load_weights(path)
    np.testing.assert_array_equal(to_numpy(other.weights[0]), to_numpy(trained.weights[0]))


@pytest.mark.one_backend
@pytest.mark.parametrize("name", CONTEXTS)
def test_a_map_without_pixels_is_refused_before_the_module_is_built_and_after(name):
    message = r"Height and width .* must be >= 1\. .* \(1, 0, 5, 8\)"
    with pytest.raises(ValueError, match=message):
        CONTEXTS[name](4).build((1, 0, 5, 8))
    module = CONTEXTS[name](4)
    module.build((None, None, None, 8))
    with pytest.raises(ValueError, match=message.replace("0, 5", "5, 0")):
        module(np.zeros((1, 5, 0, 8), "float32"))
