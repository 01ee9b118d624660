"""The programs as a user runs them, in separate processes, on real photographs."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
WEIGHTS = "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"

CLASSIFY = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf

sys.modules["kseg"] = None  # From here on, importing it fails.
model = tf.saved_model.load(sys.argv[1])
for path in map(Path, sys.argv[3:]):
    contents = tf.constant(path.read_bytes())
    image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
    pixels = model.signatures["serving_default"](images=image[tf.newaxis])["classes"]
    encoded = model.signatures["encoded"](encoded=contents[tf.newaxis])["classes"]
    np.savez(Path(sys.argv[2]) / path.stem, pixels=pixels[0], encoded=encoded[0])
"""

MIRRORED = """
import sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kseg import train
from kseg.runs.experiment_flags import from_flagfile
from tests.models.networks import registered_backbone

with registered_backbone(16):
    sys.exit(train.train(from_flagfile(sys.argv[1])))
"""


LOG_LINE = re.compile(r"^[EFIW]\d{4} .*", re.MULTILINE)  # As TensorFlow logs.


def run(*arguments, status=0):
    """Runs Python in the repository and returns the output of both streams."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert result.returncode == status, result.stdout[-3000:]
    return result.stdout


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["kseg.train", "--data_dir=nowhere", "--model_dir=x"], "nowhere"),
        (["kseg.train", "--learning_rat=1"], "learning_rat"),
        pytest.param(["kseg.evaluate", "--model_dir=nowhere"], "nowhere", marks=pytest.mark.slow),
        pytest.param(["kseg.predict", "images/*.jpg"], "images/*.jpg", marks=pytest.mark.slow),
        (["kseg.export", "--model_dir=x"], "--export_dir"),
    ],
)
def test_an_error_of_the_user_is_one_message_and_status_1(arguments, name):
    printed = run("-m", *arguments, status=1)
    assert name in printed
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert "Traceback" not in printed


@pytest.fixture(scope="module")
def photographs(real_data, tmp_path_factory):
    """Records of the VOC photographs at their original sizes, written by the program."""
    folder = tmp_path_factory.mktemp("voc") / "records"
    run(
        "-m", "tfrecords_tools.build_voc", f"--raw_dir={real_data / 'VOCdevkit' / 'VOC2012'}",
        f"--output_dir={folder}", "--splits=trainaug,val", "--label_dir=SegmentationClassAug",
    )  # fmt: skip
    return folder


def train_flags(real_data, records, folder, **changes):
    values = {
        "data_dir": records, "model_dir": folder, "train_split": "trainaug", "crop_size": 129,
        "batch_size": 8, "epochs": 1, "decoder": "false", "dilation_rates": "1,3",
        "backbone_weights": real_data / WEIGHTS, "seed": 2,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in (values | changes).items()]


@pytest.mark.slow
def test_a_network_is_trained_measured_applied_and_exported(real_data, photographs, tmp_path):
    folder = tmp_path / "run"
    printed = run("-m", "kseg.train", *train_flags(real_data, photographs, folder))
    assert not LOG_LINE.search(printed)
    printed = run("-m", "kseg.evaluate", f"--model_dir={folder}", "--split=val")
    assert not LOG_LINE.search(printed)
    scores = json.loads((folder / "eval.json").read_text())
    assert f"{scores['miou']:.4f}" in printed
    assert 0 < scores["pixel_accuracy"] < 1 and scores["iou"]["background"] > 0.3

    listed = real_data / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    names = listed.read_text().split()[:10]
    images = [real_data / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg" for name in names]
    (tmp_path / "photographs").mkdir()
    for path in images:
        (tmp_path / "photographs" / path.name).symlink_to(path)
    run(
        "-m", "kseg.predict", f"--model_dir={folder}", f"--output_dir={tmp_path / 'predicted'}",
        f"--images={tmp_path / 'photographs'}/*.jpg",
    )  # fmt: skip
    printed = run(
        "-m", "kseg.export", f"--model_dir={folder}", f"--export_dir={tmp_path / 'export'}"
    )
    assert "unsupported characters" not in printed, "TensorFlow's log hides the messages of kseg"
    (tmp_path / "exported").mkdir()
    run("-c", CLASSIFY, tmp_path / "export" / "1", tmp_path / "exported", *images)
    differing, pixels = {"pixels": 0, "encoded": 0}, 0
    for name in names:
        predicted = np.asarray(Image.open(tmp_path / "predicted" / "labels" / f"{name}.png"))
        pixels += predicted.size
        exported = np.load(tmp_path / "exported" / f"{name}.npz")
        for signature in differing:
            differing[signature] += int((exported[signature] != predicted).sum())
    assert len(names) == 10
    assert max(differing.values()) <= pixels / 100_000, differing


@pytest.mark.slow
def test_a_training_stopped_by_ctrl_c_saves_and_resumes(real_data, photographs, tmp_path):
    folder = tmp_path / "run"
    flags = train_flags(
        real_data, photographs, folder, epochs=6, backbone="tiny", backbone_weights="none"
    )
    program = ("-m", "tests.models.tiny_program", "kseg.train")
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, *program, *flags], cwd=REPOSITORY, stdout=log, stderr=log
        )
        while not (folder / "metrics.csv").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130, (tmp_path / "log").read_text()[-3000:]
    assert "stopped at step" in (tmp_path / "log").read_text()
    printed = run(*program, *flags)
    assert "resumed at step" in printed
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *"123456"]


@pytest.mark.slow
def test_two_replicas_train_to_the_weights_of_one_device(real_data, photographs, tmp_path):
    """The program on two logical CPUs. Without dropout, which each replica draws for itself."""
    results = {}
    for strategy in ("default", "mirrored"):
        folder = tmp_path / strategy
        flagfile = tmp_path / f"{strategy}.flags"
        flags = train_flags(
            real_data, photographs, folder, strategy=strategy, backbone="tiny",
            backbone_weights="none", steps=5, dropout_rate=0,
        )  # fmt: skip
        flagfile.write_text("\n".join(flags))
        printed = run("-c", MIRRORED, flagfile)
        assert ("2 replicas, " in printed) == (strategy == "mirrored")
        assert "val mIoU" in printed
        (path,) = (folder / "checkpoints").glob("step-*.npz")
        results[strategy] = np.load(path)
    single, mirrored = results["default"], results["mirrored"]
    assert set(single.files) == set(mirrored.files)
    kernels = [key for key in single.files if key.startswith("weights/") and key.endswith("kernel")]
    size = sum(float(np.sum(np.square(single[key]))) for key in kernels)
    difference = sum(float(np.sum(np.square(single[key] - mirrored[key]))) for key in kernels)
    assert 0 < difference <= (1e-5) ** 2 * size
