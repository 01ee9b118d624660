"""Protocols: what they refuse, what they are called, and what they change of a run."""

import pytest
from absl import flags

from kseg.errors import UserError
from kseg.inference import config as protocols
from kseg.inference.config import Protocol
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
def test_the_text_says_what_departs_from_one_look_at_the_whole_image(options, text):
    assert str(Protocol(**options)) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "`--scales` must be numbers above 0, none twice. Received: none"),
        ({"scales": (1.0, 0.0)}, "`--scales` must be .* Received: 1.0,0.0"),
        ({"scales": (float("nan"),)}, "`--scales` must be .* Received: nan"),
        ({"scales": (1.0, 1.0)}, "none twice"),
        ({"average": "max"}, "`--average` must be one of softmax, logits. Received: max"),
        ({"tta": "all"}, "`--tta` must be one of none, dlinknet. Received: all"),
        ({"eval_size": (1, 2, 3)}, "`--eval_size` must be height,width.* Received: 1,2,3"),
        ({"window_size": (0,)}, "`--window_size` must be height,width.* Received: 0,0"),
        ({"window_stride": (5,)}, "`--window_stride` goes with `--window_size` alone"),
        (
            {"window_size": (8,), "window_stride": (8, 9)},
            "`--window_stride` must be at most `--window_size`.* Received: 9 and 8",
        ),
        ({"window_size": (8,), "eval_size": (8,)}, "exclude each other"),
        ({"flip": True, "tta": "dlinknet"}, "`--flip` is among the eight"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Protocol(**options)


def test_the_flags_give_the_protocol_and_bad_numbers_are_named():
    values = flags.FlagValues()
    protocols.define_flags(values)
    values(["x"])
    assert protocols.from_flags(values) == Protocol()
    values(["x", "--scales=0.5,1", "--flip", "--average=logits", "--eval_size=513,385"])
    expected = Protocol(scales=(0.5, 1.0), flip=True, average="logits", eval_size=(513, 385))
    assert protocols.from_flags(values) == expected
    values(["x", "--scales=0.5,1x"])
    with pytest.raises(UserError, match="`--scales` must be numbers .* Received: 0.5,1x"):
        protocols.from_flags(values)


def test_rates_and_output_stride_change_the_experiment_and_nothing_else():
    experiment = Experiment(context="aspp", dilation_rates=(6, 12, 18))
    changed = Protocol(eval_dilation_rates=(24, 28, 32), output_stride=8).applied_to(experiment)
    assert changed == experiment.replace(dilation_rates=(24, 28, 32), output_stride=8)
    assert Protocol(flip=True).applied_to(experiment) is experiment
    with pytest.raises(UserError, match=r"as many as those trained with \(6,12,18\).*: 6,12"):
        Protocol(eval_dilation_rates=(6, 12)).applied_to(experiment)
    for name, other in (
        ("lkspp", Experiment(context="lkspp")), ("dfp_fcn", Experiment(model="dfp_fcn")),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"`--eval_dilation_rates` .* {name} has none.*: 6"):
            Protocol(eval_dilation_rates=(6,)).applied_to(other)


def test_an_image_larger_than_the_padded_size_is_refused():
    Protocol(eval_size=(20, 30)).check_fits(20, 30)
    Protocol().check_fits(2000, 3000)
    with pytest.raises(UserError, match="`--eval_size` .* Received: 20x30, and an image of 20x31"):
        Protocol(eval_size=(20, 30)).check_fits(20, 31)
