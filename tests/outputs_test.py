"""Every program on a read-only output and on a full disk: one line, status 1, no traceback."""

import multiprocessing
import os
import re
import resource
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from kseg.backbones import BACKBONES
from kseg.data.datasets import VOC
from kseg.formats.imports.official_names import official_name
from kseg.formats.imports.official_networks import head_variables
from kseg.runs.checkpoints import Position
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from tests.data import shards
from tests.import_checkpoint_test import write_checkpoint
from tests.tfrecords_tools import folders

REPOSITORY = Path(__file__).resolve().parent.parent
NETWORK = {
    "backbone": "mobilenet_v2", "backbone_weights": "none", "context": "aspp",
    "dilation_rates": (1, 2), "decoder": False, "batch_size": 2, "epochs": 1,
}  # fmt: skip

# Program -> its arguments and the flag that sets the output. IN is a folder of inputs, OUT one that
# is read-only or on a full disk.
CASES = {
    "kseg.train": (
        "--data_dir=IN/records --model_dir=OUT/new --backbone_weights=none --context=aspp "
        "--dilation_rates=1,2 --nodecoder --batch_size=2 --epochs=1 --crop_size=65",
        "model_dir",
    ),
    # The output of these two is the folder of their input.
    "kseg.evaluate": ("--model_dir=OUT/run", "report"),
    "tfrecords_tools.build_manifest": ("--data_dir=OUT/records --dataset=voc", "OUT/records"),
    "kseg.predict": ("--model_dir=IN/run --images=IN/images --output_dir=OUT/new", "output_dir"),
    "kseg.export": ("--model_dir=IN/run --export_dir=OUT/new", "export_dir"),
    "kseg.export litert": (
        "--model_dir=IN/run --export_dir=OUT/new --format=litert --image_size=33",
        "export_dir",
    ),
    "kseg.compare": ("IN/run --table=OUT/table.md", "table"),
    "kseg.compare figures": (
        "IN/run --receptive_field=IN/images/a.png --output_dir=OUT",
        "output_dir",
    ),
    "kseg.import_checkpoint": (
        "--checkpoint=IN/official/model.ckpt --backbone=mobilenet_v2 --output=OUT/x.weights.h5",
        "output",
    ),
    "kseg.import_checkpoint network": (
        "--checkpoint=IN/official/network.ckpt --model_dir=OUT/new --dilation_rates=1,2",
        "model_dir",
    ),
    "kseg.benchmark": (
        "--what=layers --only=aspp --repetitions=1 --shape=1,33,33,8 --results=OUT/x.csv",
        "results",
    ),
    "kseg.papers": ("--figure=OUT/x.png", "figure"),
    "kseg.study": (
        "--experiments=IN/study.flags --seeds=1 --data_dir=IN/records --output_dir=OUT/new",
        "output_dir",
    ),
    "kseg.demo": ("--output_dir=OUT/demo", "output_dir"),
    "tfrecords_tools.build_folder": (
        "--images=IN/images --labels=IN/masks --classes=IN/classes.txt --split=all "
        "--output_dir=OUT/new",
        "OUT/new",
    ),
    "tfrecords_tools.check_records": ("--data_dir=IN/records --sheet=OUT/x.png", "sheet"),
}
# The other converters write as build_folder does, by `tfrecords_tools.writer`.
LIKE_BUILD_FOLDER = {
    f"tfrecords_tools.build_{name}"
    for name in (
        "ade20k", "camvid", "cityscapes", "coco", "deepglobe", "sbd", "scenes", "tfds", "voc",
    )
}  # fmt: skip


def test_every_program_has_a_case():
    programs = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__")
        for folder in ("kseg", "tfrecords_tools")
        for path in (REPOSITORY / folder).rglob("*.py")
        if "\n    cli.run(main" in path.read_text("utf-8")
    }
    assert {name.split()[0] for name in CASES} | LIKE_BUILD_FOLDER == programs
    for name in LIKE_BUILD_FOLDER:
        source = (REPOSITORY / f"{name.replace('.', '/')}.py").read_text("utf-8")
        assert "writer.convert(" in source


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A run, records, images with masks, and two official checkpoints."""
    root = tmp_path_factory.mktemp("in")
    for split in ("train", "val"):
        pictures = [shards.numbered(number, (65, 65)) for number in range(4)]
        shards.write(root / "records", split, pictures)
    experiment = Experiment(
        data_dir=str(root / "records"), model_dir=str(root / "run"), crop_size=(65, 65), **NETWORK
    )
    run = RunFolder(experiment.model_dir)
    start(run, experiment, VOC)
    model = experiment.build_model(VOC.num_classes)
    model.compile(optimizer="sgd")
    run.checkpoints.save(model, Position())
    (root / "study.flags").write_text("--batch_size=2\n--epochs=1\n--crop_size=65\n")
    folders.image(root / "images" / "a.png", size=(96, 96))
    folders.mask(root / "masks" / "a.png", 1, size=(96, 96))
    (root / "classes.txt").write_text("background\nthing\n")
    backbone = BACKBONES["mobilenet_v2"].application(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    variables = {
        official_name("mobilenet_v2", layer, variable): variable.numpy()
        for layer in backbone.layers
        for variable in layer.weights
    }
    (root / "official").mkdir()
    write_checkpoint(root / "official" / "model.ckpt", variables)
    network = {
        official_name("mobilenet_v2", layer, variable): variable.numpy()
        for layer in model.get_layer("mobilenet_v2").layers
        for variable in layer.weights
    } | {name: variable.numpy() for name, _, variable in head_variables(model)}
    write_checkpoint(root / "official" / "network.ckpt", network)
    return root


@pytest.fixture(params=["read-only", "full"])
def output(request, inputs, tmp_path):
    """A folder that cannot be written, and the size of files where only the process is limited."""
    folder = tmp_path / "out"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        shutil.copytree(inputs / "run", folder / "run")
        shutil.copytree(inputs / "records", folder / "records")
        for path in (folder / "records").glob("*.manifest.json"):
            path.unlink()
        limit = None
        if mounted and request.param == "full":
            with open(folder / "rest", "wb", buffering=0) as file, pytest.raises(OSError):
                while file.write(bytes(1 << 16)):
                    pass
        elif mounted:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        elif request.param == "full":
            # Files can be created, but hardly written; temporary files are so limited as well.
            limit = 16
        elif os.geteuid():
            for path in (folder, folder / "run", folder / "records"):
                path.chmod(0o555)
        else:
            pytest.skip("Nothing can be mounted here, and root writes to read-only folders")
        yield folder, limit
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        else:
            for path in (folder, folder / "run", folder / "records"):
                path.chmod(0o755)


def program(name, arguments, streams, limit):
    """Runs a program as `python -m` does; the main function of a process.

    Args:
        name: Name of the module.
        arguments: The arguments of the command line.
        streams: Connections that become standard output and standard error. They are pipes, since
            the limit on the size of files would hold for files, too.
        limit: Largest size of a file in bytes, or None.
    """
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
        stream.close()
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    os.environ["KSEG_PROGRAM"] = "1"  # As the start of a program sets it for its processes.
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def read(stream):
    """Returns what is written to a connection until all its writers have closed it."""
    with open(stream.fileno(), "rb", closefd=False) as file:
        return file.read().decode()


@pytest.fixture(scope="module")
def processes():
    """Processes that are forked from one that has imported TensorFlow: 33 imports take minutes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_program_that_cannot_write_says_so_in_one_line(name, output, inputs, processes, request):
    folder, limit = output
    if limit and name in ("kseg.export litert", "kseg.benchmark"):
        pytest.skip("Nothing can be mounted here, and this program needs temporary files")
    arguments, named = (text.replace("OUT", str(folder)) for text in CASES[name])
    arguments = arguments.replace("IN/", f"{inputs}/").split()
    ours, theirs = zip(*(processes.Pipe(duplex=False) for _ in range(2)), strict=True)
    process = processes.Process(target=program, args=(name.split()[0], arguments, theirs, limit))
    process.start()
    for stream in theirs:
        stream.close()
    with ThreadPoolExecutor(2) as pool:
        reading = pool.map(read, ours)
        process.join(timeout=600)
        process.kill()  # It does nothing to a process that has ended.
        stdout, stderr = reading
    assert process.exitcode == 1, stderr[-3000:]
    # Progress bars end their lines with a carriage return.
    lines = [line for line in re.split(r"[\r\n]+", stderr) if line.strip()]
    assert "Traceback" not in stderr and "Exception ignored" not in stderr
    assert sum("error: " in line for line in lines) == 1 and "error: " in lines[-1]
    assert re.search(r"cannot (be written: |be created: |write to )", lines[-1])
    assert str(folder) in lines[-1]
    assert f"`--{named}`" in lines[-1] or named in lines[-1]
    if name == "kseg.evaluate":
        # A folder that cannot be written is noticed before the evaluation, a full disk after it.
        is_full = request.node.callspec.params["output"] == "full"
        assert ("mIoU" in stdout) == is_full and "Nothing was written" in lines[-1]
        assert {path.name for path in folder.joinpath("run").iterdir()} == {
            path.name for path in (inputs / "run").iterdir()
        }
    assert not list(folder.rglob(".partial*"))


@pytest.mark.slow
def test_an_image_of_the_inputs_is_predicted_where_there_is_room(inputs, tmp_path):
    """The programs above fail for their output only."""
    command = [
        sys.executable, "-m", "kseg.predict", f"--model_dir={inputs}/run",
        f"--images={inputs}/images", f"--output_dir={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "labels" / "a.png") as labels:
        assert labels.size == (96, 96)
