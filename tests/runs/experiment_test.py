"""One field = one flag = one line of the flagfile, and bad values are named."""

import dataclasses
import subprocess
import sys

import pytest
from absl import flags

from kseg.runs import experiment as experiments
from kseg.errors import UserError
from kseg.runs.experiment import Experiment, differences


def parsed(*arguments):
    values = flags.FlagValues()
    experiments.define_flags(values)
    values(["kseg", *arguments])
    return experiments.from_flags(values)


def test_every_field_is_a_flag_and_survives_the_flagfile(tmp_path):
    experiment = Experiment(
        data_dir="some where/data", model_dir="runs/x", context="ksac", merge="concat",
        dilation_rates=(1, 3), image_pooling=False, dropout_rate=0.2, crop_size=(129, 161),
        flip=False, learning_rate=0.0123,
    )  # fmt: skip
    path = tmp_path / "experiment.flags"
    path.write_text(experiment.to_flagfile())
    assert Experiment.from_flagfile(path) == experiment
    names = {line[2:].split("=")[0] for line in path.read_text().splitlines()}
    fields = {field.name for field in dataclasses.fields(Experiment)}
    assert names == {name for name in fields if getattr(experiment, name) is not None}
    assert fields - names >= {"kernel_sizes", "depth"}, "what the network does not take"


@pytest.mark.parametrize(
    "options",
    [
        {"context": "lkspp", "kernel_sizes": (1, 5), "odd_kernels": True},
        {"context": "vortex", "module": "A", "pool_size": 9},
        {"model": "gcn_fcn", "kernel": "stack", "boundary_refinement": False},
        {"model": "dfp_fcn", "depth": 3, "scales": (1.0, 0.5)},
    ],
)
def test_options_of_networks_and_modules_survive_the_flagfile(options, tmp_path):
    experiment = Experiment(**options)
    path = tmp_path / "experiment.flags"
    path.write_text(experiment.to_flagfile())
    assert Experiment.from_flagfile(path) == experiment
    assert {name: getattr(experiment, name) for name in options} == options


def test_a_flag_after_the_flagfile_wins(tmp_path):
    path = tmp_path / "x.flags"
    path.write_text("# comment\n--epochs=3\n--context=aspp\n")
    experiment = parsed(f"--flagfile={path}", "--epochs=7")
    assert (experiment.epochs, experiment.context) == (7, "aspp")


def test_one_crop_size_makes_a_square():
    assert parsed("--crop_size=225").crop_size == (225, 225)


def test_options_left_empty_are_resolved_to_the_defaults_of_the_module():
    experiment = Experiment(context="ksac")
    assert (experiment.dilation_rates, experiment.merge) == ((6, 12, 18), "sum")
    assert Experiment(context="aspp").merge is None
    assert parsed("--merge=", "--dilation_rates=").merge == "sum"
    assert Experiment(model="dfp_fcn").context is None
    assert (Experiment().backbone, Experiment(model="gcn_fcn").backbone) == (
        "mobilenet_v2",
        "resnet50",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--context=pspnet"], r"`--context` must be one of none, aspp, .* Received: 'pspnet'"),
        (["--backbone=vgg"], r"`--backbone` must be one of mobilenet_v2, .*resnet50"),
        (["--schedule=cosine"], r"`--schedule` must be one of poly, linear, halving, constant"),
        (["--schedule=halving"], r"needs `--halve_every` of at least 1. Received: 0"),
        (["--losses=focal"], r"`--losses` must be one of cross_entropy, dice. Received: 'focal'"),
        (["--losses="], r"`--losses` must hold names, none twice"),
        (["--hard_pixels=0"], r"`--hard_pixels` must be in \(0, 1\]. Received: 0.0"),
        (["--precision=float64"], r"`--precision` must be one of float32, mixed_bfloat16"),
        (["--strategy=many"], r"`--strategy` must be one of default, mirrored"),
        (["--crop_size=1,2,3"], r"`--crop_size` must be height,width"),
        (["--crop_size=big"], r"`--crop_size` must be integers joined by commas. Received: big"),
        (["--crop_size=16"], r"each at least twice `--output_stride`"),
        (["--min_scale=2", "--max_scale=1"], r"`--min_scale` must be above 0 and at most"),
        (["--batch_size=0"], r"`--batch_size` must be at least 1. Received: 0"),
        (["--learning_rate=-1"], r"`--learning_rate` must be at least 0. Received: -1.0"),
        (["--learning_rate=inf"], r"`--learning_rate` must be finite. Received: inf"),
        (["--learning_rate_power=-1"], r"`--learning_rate_power` must be at least 0"),
        (["--seed=-1"], r"`--seed` must be at least 0. Received: -1"),
        (["--freeze_batch_norm_epoch=-2"], r"`--freeze_batch_norm_epoch` must be at least -1"),
        (["--class_weights=1,-1"], r"`--class_weights` must be at least 0, and one of them above"),
        (["--momentum=1"], r"`--momentum` must be in \[0, 1\). Received: 1.0"),
        (["--context=aspp", "--merge=sum"], r"`--merge` is not taken by `--context=aspp`"),
        (["--model=unet"], r"`--model` must be one of deeplab_v3_plus, gcn_fcn, dfp_fcn"),
        (
            ["--model=gcn_fcn", "--context=aspp"],
            r"`--context` is not taken by `--model=gcn_fcn`. Received: aspp",
        ),
        (["--model=dfp_fcn", "--scales=1,x"], r"`--scales` must be numbers joined by commas"),
    ],
)
def test_bad_values_are_refused_by_name(arguments, message):
    with pytest.raises(UserError, match=message):
        parsed(*arguments)


def test_what_a_layer_refuses_reaches_the_user_as_one_message():
    with pytest.raises(UserError, match="`dilation_rates`"):
        Experiment(dilation_rates=(0,)).build_model(3)


def test_differences_name_the_flag_and_both_values_but_not_the_folders():
    old = Experiment(model_dir="a", epochs=3)
    assert differences(old, old.replace(model_dir="b", data_dir="c")) == []
    assert differences(old, old.replace(epochs=4)) == ["--epochs: 3 in the run, 4 asked for"]


def test_a_flagfile_with_an_unknown_flag_is_refused(tmp_path):
    path = tmp_path / "x.flags"
    path.write_text("--learning_rat=1\n")
    with pytest.raises(UserError, match="learning_rat"):
        Experiment.from_flagfile(path)
    with pytest.raises(UserError, match="no flagfile at"):
        Experiment.from_flagfile(tmp_path / "none.flags")


def test_help_lists_the_flags_of_an_experiment():
    command = [sys.executable, "-m", "kseg.train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    for flag in ("--crop_size", "--context", "--overwrite"):
        assert f"\n  {flag}" in done.stdout or f"\n  --[no]{flag[2:]}" in done.stdout
