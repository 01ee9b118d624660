"""Inference configs: their checks, their text form, and how they change an experiment."""

import numpy as np
import pytest
from absl import flags

from kseg.errors import UserError
from kseg.inference import config as configs
from kseg.inference.config import InferenceConfig
from kseg.runs.experiment import Experiment


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "single scale, whole images"),
        ({"scales": (0.5, 1.0), "flip": True}, "scales 0.5, 1.0; flip; softmax averaged"),
        ({"scales": (2.0,)}, "scales 2.0"),
        (
            {"flip": True, "average": "logits", "eval_size": (513,)},
            "single scale; padded to 513x513; flip; logits averaged",
        ),
        (
            {"window_size": (1024, 512)},
            "single scale; windows 1024x512 every 683x341; softmax averaged",
        ),
        (
            {"tta": "dlinknet", "crf": True},
            "single scale, whole images; eight flips and turns; softmax averaged; dense CRF",
        ),
        (
            {"eval_dilation_rates": (24, 28, 32), "output_stride": 8},
            "single scale, whole images; dilation rates 24, 28, 32; output stride 8",
        ),
    ],
)
def test_the_text_form_names_all_options_that_differ_from_the_defaults(options, text):
    assert str(InferenceConfig(**options)) == text


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("scales", {"scales": ()}),
        ("scales", {"scales": (1.0, 0.0)}),
        ("scales", {"scales": (float("nan"),)}),
        ("scales", {"scales": (1.0, 1.0)}),
        ("scales", {"scales": (1e9,)}),
        ("output_stride", {"output_stride": 0}),
        ("output_stride", {"output_stride": "8"}),
        ("scales", {"scales": "0.5"}),
        ("scales", {"scales": None}),
        ("average", {"average": "max"}),
        ("tta", {"tta": "all"}),
        ("jit_compile", {"jit_compile": "yes"}),
        ("eval_size", {"eval_size": (1, 2, 3)}),
        ("eval_size", {"eval_size": 513.0}),
        ("eval_size", {"eval_size": (513, "513")}),
        ("window_size", {"window_size": (0,)}),
        ("window_size", {"window_size": "129"}),
        ("window_stride", {"window_stride": (5,)}),
        ("window_stride", {"window_size": (8,), "window_stride": (8, 9)}),
        ("window_size", {"window_size": (8,), "eval_size": (8,)}),
        ("eval_dilation_rates", {"eval_dilation_rates": (6, 12.0)}),
        ("flip", {"flip": True, "tta": "dlinknet"}),
    ],
)
def test_invalid_values_are_errors_that_name_the_flag(flag, options):
    with pytest.raises(UserError, match=f"`--{flag}`"):
        InferenceConfig(**options)


def test_one_number_stands_for_a_tuple_of_one():
    numbers = InferenceConfig(scales=0.5, window_size=129, window_stride=65)
    assert numbers == InferenceConfig(scales=(0.5,), window_size=(129, 129), window_stride=[65])
    assert InferenceConfig(eval_size=513).eval_size == (513, 513)


def test_numbers_of_numpy_are_those_of_python():
    found = InferenceConfig(
        scales=np.array([0.5, 1], "float32"),
        window_size=np.int64(129),
        window_stride=np.array([65, 33]),
        eval_dilation_rates=(np.int32(6),),
    )
    expected = InferenceConfig(
        scales=(0.5, 1), window_size=129, window_stride=(65, 33), eval_dilation_rates=6
    )
    assert found == expected and hash(found) == hash(expected) and str(found) == str(expected)
    sizes = found.window_size + found.window_stride + found.eval_dilation_rates
    assert {type(value) for value in sizes} == {int}


def test_a_config_is_read_from_flags_and_invalid_numbers_are_errors():
    values = flags.FlagValues()
    configs.define_flags(values)
    values(["x"])
    assert configs.from_flags(values) == InferenceConfig()
    values(["x", "--scales=0.5,1", "--flip", "--average=logits", "--eval_size=513,385"])
    expected = InferenceConfig(scales=(0.5, 1.0), flip=True, average="logits", eval_size=(513, 385))
    assert configs.from_flags(values) == expected
    values(["x", "--scales=0.5,1x"])
    with pytest.raises(UserError, match="`--scales`.*0.5,1x"):
        configs.from_flags(values)


def test_only_rates_and_output_stride_change_the_experiment():
    experiment = Experiment(context="aspp", dilation_rates=(6, 12, 18))
    changed = InferenceConfig(eval_dilation_rates=(24, 28, 32), output_stride=8).applied_to(
        experiment
    )
    assert changed == experiment.replace(dilation_rates=(24, 28, 32), output_stride=8)
    assert InferenceConfig(flip=True).applied_to(experiment) is experiment
    with pytest.raises(UserError, match=r"`--eval_dilation_rates`.*6,12,18"):
        InferenceConfig(eval_dilation_rates=(6, 12)).applied_to(experiment)
    for without_rates in (Experiment(context="lkspp"), Experiment(model="dfp_fcn")):
        with pytest.raises(UserError, match="`--eval_dilation_rates`"):
            InferenceConfig(eval_dilation_rates=(6,)).applied_to(without_rates)


def test_an_image_larger_than_the_padded_size_is_an_error():
    InferenceConfig(eval_size=(20, 30)).check_fits(20, 30)
    InferenceConfig().check_fits(2000, 3000)
    with pytest.raises(UserError, match="`--eval_size`.*20x31"):
        InferenceConfig(eval_size=(20, 30)).check_fits(20, 31)
