"""Experiments: flags, flagfiles, defaults, and errors about invalid values."""

import os
import subprocess
import sys

import pytest
from absl import flags

from kseg.errors import UserError
from kseg.runs.experiment import Experiment, known_options, setting_fields
from kseg.runs.experiment_flags import (
    RENAMED_FLAGS,
    define_flags,
    from_flagfile,
    from_flags,
    to_flagfile,
)


def parsed(*arguments):
    values = flags.FlagValues()
    define_flags(values, arguments)
    values(["kseg", *arguments])
    return from_flags(values)


def test_every_field_is_a_flag_and_survives_the_flagfile(tmp_path):
    experiment = Experiment(
        data_dir="some where/data", model_dir="runs/x", context="ksac", merge="concat",
        dilation_rates=(1, 3), image_pooling=False, dropout_rate=0.2, crop_size=(129, 161),
        horizontal_flip=False, learning_rate=0.0123,
    )  # fmt: skip
    path = tmp_path / "experiment.flags"
    path.write_text(to_flagfile(experiment))
    assert from_flagfile(path) == experiment
    names = {line[2:].split("=")[0] for line in path.read_text().splitlines()}
    known = {field.name for field in setting_fields()} | set(known_options())
    assert names == {name for name in known if getattr(experiment, name) is not None}
    assert known - names >= {"kernel_sizes", "depth"}, "options of other networks and modules"


@pytest.mark.parametrize(
    "options",
    [
        {"context": "lkspp", "kernel_sizes": (1, 5), "odd_kernels": True},
        {"context": "vortex", "variant": "A", "pool_size": 9},
        {"model": "gcn_fcn", "kernel": "stack", "boundary_refinement": False},
        {"model": "dfp_fcn", "depth": 3, "pyramid_scales": (1.0, 0.5)},
    ],
)
def test_options_of_networks_and_modules_survive_the_flagfile(options, tmp_path):
    experiment = Experiment(**options)
    path = tmp_path / "experiment.flags"
    path.write_text(to_flagfile(experiment))
    assert from_flagfile(path) == experiment
    assert {name: getattr(experiment, name) for name in options} == options


def test_a_flag_after_the_flagfile_overrides_it(tmp_path):
    path = tmp_path / "x.flags"
    path.write_text("# comment\n--epochs=3\n--context=aspp\n")
    experiment = parsed(f"--flagfile={path}", "--epochs=7")
    assert (experiment.epochs, experiment.context) == (7, "aspp")


def test_a_single_number_as_crop_size_means_a_square():
    assert parsed("--crop_size=225").crop_size == (225, 225)


def test_empty_options_get_the_defaults_of_the_context_module():
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
    ("flag", "arguments"),
    [
        ("context", ["--context=pspnet"]),
        ("context", ["--context=no.such.module:Layer"]),
        ("context", ["--context=math:pi"]),
        ("backbone", ["--backbone=vgg"]),
        ("schedule", ["--schedule=cosine"]),
        ("halve_every", ["--schedule=halving"]),
        ("losses", ["--losses=focal"]),
        ("losses", ["--losses="]),
        ("ohem_fraction", ["--ohem_fraction=0"]),
        ("precision", ["--precision=float64"]),
        ("strategy", ["--strategy=many"]),
        ("crop_size", ["--crop_size=1,2,3"]),
        ("crop_size", ["--crop_size=big"]),
        ("crop_size", ["--crop_size=16"]),
        ("crop_size", ["--crop_size=20000"]),
        ("mixture_weights", ["--train_split=a,b", "--mixture_weights=1,0"]),
        ("mixture_weights", ["--train_split=a,b", "--mixture_weights=nan,1"]),
        ("min_scale", ["--min_scale=2", "--max_scale=1"]),
        ("batch_size", ["--batch_size=0"]),
        ("learning_rate", ["--learning_rate=-1"]),
        ("learning_rate", ["--learning_rate=inf"]),
        ("learning_rate_power", ["--learning_rate_power=-1"]),
        ("seed", ["--seed=-1"]),
        ("seed", [f"--seed={2**32}"]),
        ("steps", [f"--steps={2**31}"]),
        ("freeze_batch_norm_epoch", ["--freeze_batch_norm_epoch=-2"]),
        ("backbone_learning_rate_factor", ["--backbone_learning_rate_factor=0"]),
        ("backbone_learning_rate_factor", ["--backbone_learning_rate_factor=10"]),
        ("freeze_backbone_epochs", ["--freeze_backbone_epochs=-1"]),
        ("class_weights", ["--class_weights=1,-1"]),
        ("momentum", ["--momentum=1"]),
        ("merge", ["--context=aspp", "--merge=sum"]),
        ("model", ["--model=unet"]),
        ("context", ["--model=gcn_fcn", "--context=aspp"]),
        ("pyramid_scales", ["--model=dfp_fcn", "--pyramid_scales=1,x"]),
    ],
)
def test_invalid_values_are_errors_that_name_the_flag(flag, arguments):
    with pytest.raises(UserError, match=rf"`(--)?{flag}\b"):
        parsed(*arguments)


def test_former_names_of_flags_and_values_are_accepted_with_a_note(capsys):
    old = parsed("--context=vortex", "--module=A", "--noflip", "--hard_pixels=0.5")
    new = parsed("--context=vortex", "--variant=A", "--nohorizontal_flip", "--ohem_fraction=0.5")
    assert old == new
    assert old.variant == "A" and not old.horizontal_flip
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 3
    for name in ("module", "flip", "hard_pixels"):
        assert any(f"--{name} " in note and RENAMED_FLAGS[name] in note for note in notes)
    old = parsed("--model=dfp_fcn", "--scales=1,0.5")
    assert old == parsed("--model=dfp_fcn", "--pyramid_scales=1,0.5")
    old = parsed("--model=gcn_fcn", "--upsampling=deconvolution")
    assert old == parsed("--model=gcn_fcn", "--upsampling=conv2d_transpose")


def test_an_error_of_a_layer_becomes_a_user_error():
    with pytest.raises(UserError, match="`dilation_rates`"):
        Experiment(dilation_rates=(0,)).build_model(3)


def test_differences_hold_both_values_of_each_flag_except_the_folders():
    old = Experiment(model_dir="a", epochs=3)
    assert old.differences(old.replace(model_dir="b", data_dir="c")) == {}
    assert old.differences(old.replace(epochs=4)) == {"epochs": (3, 4)}
    assert old.differences(Experiment(epochs=3, merge="concat")) == {"merge": ("sum", "concat")}


@pytest.mark.parametrize("line", ["crop_size=65", "--", "nonsense"])
def test_a_line_of_a_flagfile_that_is_no_flag_is_an_error(line, tmp_path):
    path = tmp_path / "x.flags"
    path.write_text(f"--batch_size=4\n{line}\n--epochs=3\n")
    with pytest.raises(UserError, match="--epochs=3" if line == "--" else line):
        from_flagfile(path)


def test_an_unknown_flag_in_a_flagfile_and_a_missing_flagfile_are_errors(tmp_path):
    path = tmp_path / "x.flags"
    path.write_text("--learning_rat=1\n")
    with pytest.raises(UserError, match="learning_rat"):
        from_flagfile(path)
    with pytest.raises(UserError, match="none.flags"):
        from_flagfile(tmp_path / "none.flags")


def test_help_lists_the_flags_of_an_experiment():
    command = [sys.executable, "-m", "kseg.train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    for flag in ("--crop_size", "--context", "--overwrite"):
        assert f"\n  {flag}" in done.stdout or f"\n  --[no]{flag[2:]}" in done.stdout


def test_default_rates_are_written_down_and_stay_at_another_output_stride():
    experiment = parsed("--context=vortex", "--variant=A")
    assert experiment.dilation_rates == (6, 12, 18)
    assert experiment.replace(output_stride=8).dilation_rates == (6, 12, 18)
    assert parsed("--context=vortex").dilation_rates == (1, 3, 9, 27)


def test_a_small_crop_is_refused_in_training_only():
    with pytest.raises(UserError, match="`--crop_size`.*output stride 16.*17"):
        parsed("--crop_size=17")
    assert parsed("--crop_size=49").replace(output_stride=32).output_stride == 32


def test_a_path_that_is_not_text_is_refused():
    with pytest.raises(UserError, match="`--data_dir` must be UTF-8"):
        Experiment(data_dir=os.fsdecode(b"/tmp/d\xe9"))
