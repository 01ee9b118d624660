"""A context module that is not in kseg: nothing but its class is needed.

The module is that of docs/extending.md. It is registered in this file, and in other processes it is
given by its import path.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import kseg
from kseg.benchmark import runner, zoo
from kseg.errors import UserError
from kseg.evaluate import evaluate
from kseg.export import export
from kseg.models import CONTEXTS, deeplab_v3_plus, list_contexts, register_context
from kseg.models.options import options_of
from kseg.runs.experiment_flags import define_flags, from_flags
from kseg.runs.folder import RunFolder
from kseg.train import train
from tests import layer_checks
from tests.data import shards
from tests.documents import python_blocks

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = python_blocks(REPOSITORY / "docs" / "extending.md")[0]
SMALL = ["--filters=8", "--nodecoder", "--crop_size=65", "--batch_size=2", "--steps=2"]

namespace = {"__name__": "extending"}
exec(compile(SOURCE, "docs/extending.md", "exec"), namespace)
StackedConvs = namespace["StackedConvs"]


@pytest.fixture
def registered():
    register_context("stacked_convs", StackedConvs)
    yield "stacked_convs"
    del CONTEXTS["stacked_convs"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for split in ("train", "val"):
        shards.write(folder, split, [shards.numbered(number, (70, 80)) for number in range(4)])
    return folder


def parsed(*arguments):
    values = flags.FlagValues()
    define_flags(values, arguments)
    values(["kseg", *arguments])
    return from_flags(values)


def test_it_keeps_the_contract_of_layers(tmp_path):
    layer_checks.check_layer(
        lambda **options: StackedConvs(filters=4, **options), [(4, 6, 5, 3)], (4, 6, 5, 4), tmp_path
    )


def test_a_registered_module_is_trained_evaluated_and_exported(registered, records, tmp_path):
    assert registered in list_contexts()
    experiment = parsed(
        f"--context={registered}", "--num_convs=3", *SMALL,
        f"--data_dir={records}", f"--model_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert experiment.num_convs == 3
    assert train(experiment) == 0
    run = RunFolder(tmp_path / "run")
    assert "--num_convs=3" in run.experiment_file.read_text().splitlines()
    assert 0 <= evaluate(run, str(records), "val").miou <= 1
    segmenter = kseg.load(run.path)
    assert isinstance(segmenter.get_layer("context"), StackedConvs)
    assert len(segmenter.get_layer("context").convs) == 3
    version = export(segmenter, run.label_set, tmp_path / "exported")
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    classes = served(images=tf.constant(image[np.newaxis]))["classes"][0].numpy()
    np.testing.assert_array_equal(classes, segmenter.predict_classes(image))


def test_a_registered_module_is_a_row_of_the_zoo(registered, capsys):
    (row,) = runner.run(zoo.BENCHMARK, only=(registered,), shape=(1, 65, 65))
    network = deeplab_v3_plus(21, context=registered, decoder=False)
    assert row.parameters == sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert registered in capsys.readouterr().out


def test_its_options_have_flags_with_help_and_default():
    option = options_of(StackedConvs)["num_convs"]
    assert (option.kind, option.is_list, option.default) == (int, False, 2)
    assert option.help.startswith("Integer. Number of convolutions.")


def test_a_module_with_the_option_of_another_type_is_refused(monkeypatch):
    class Clash(StackedConvs):
        def __init__(self, *, dilation_rates: int = 3, **kwargs):
            super().__init__(**kwargs)

    monkeypatch.setitem(CONTEXTS, "clash", Clash)
    with pytest.raises(UserError, match="`dilation_rates`"):
        parsed("--epochs=1")


def test_a_module_whose_arguments_cannot_be_flags_is_refused():
    class Untyped(keras.layers.Layer):
        def __init__(self, *, size=3, **kwargs):
            super().__init__(**kwargs)

    with pytest.raises(ValueError, match="`size`"):
        register_context("untyped", Untyped)
    with pytest.raises(ValueError, match="'ksac'"):
        register_context("ksac", StackedConvs)


def test_its_path_may_follow_the_name_of_the_flag_as_the_next_argument():
    path = f"{__name__}:StackedConvs"
    expected = parsed(f"--context={path}", "--num_convs=3")
    assert parsed("--context", path, "--num_convs=3") == expected
    assert parsed("--num_convs=3", "-context", path) == expected
    assert expected.num_convs == 3


def test_an_instance_is_a_context_and_takes_no_options():
    network = deeplab_v3_plus(3, context=StackedConvs(filters=4, name="mine"))
    assert network.get_layer("mine").filters == 4 and network.context == "mine"
    with pytest.raises(ValueError, match="`num_convs`"):
        deeplab_v3_plus(3, context=StackedConvs(), num_convs=2)


@pytest.mark.slow
def test_other_processes_import_it_by_its_path(records, tmp_path):
    (tmp_path / "my_context.py").write_text(SOURCE)

    def call(program, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", f"kseg.{program}", *arguments],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    call(
        "train", "--context=my_context:StackedConvs", "--num_convs=1", *SMALL,
        "--backbone=mobilenet_v2_dm05",
        f"--data_dir={records}", "--model_dir=run",
    )  # fmt: skip
    assert "--context=my_context:StackedConvs" in (tmp_path / "run/experiment.flags").read_text()
    call("export", "--model_dir=run", "--export_dir=exported")
    assert (tmp_path / "exported/1/saved_model.pb").is_file()
    assert "--num_convs" in call("train", "--context=my_context:StackedConvs", "--help")
