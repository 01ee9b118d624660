"""The scripts in docs/serving.md that run exported files on images of any size."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kseg.formats import litert, onnx
from kseg.models import deeplab_v3_plus
from tests.documents import python_blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
SIZE = (65, 81)


@pytest.fixture(scope="module")
def network():
    return deeplab_v3_plus(5, context="none", filters=8, decoder=False)


@pytest.fixture(scope="module", params=["onnxruntime", "ai_edge_litert"])
def exported(request, network):
    """The name of a runtime and the contents of a file for it."""
    pytest.importorskip(request.param)
    if request.param == "onnxruntime":
        pytest.importorskip("tf2onnx")
        return request.param, onnx.convert(network, SIZE)
    return request.param, litert.convert(network, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [(65, 81), (40, 50), (130, 100)])
def test_the_script_of_a_runtime_gives_the_classes(exported, image_size, network, tmp_path):
    runtime, content = exported
    (script,) = (block for block in python_blocks(PAGE) if f"{runtime}" in block.split("model_")[0])
    assert len(script.splitlines()) <= 22
    (tmp_path / "model").write_bytes(content)
    pixels = np.random.default_rng(0).integers(0, 256, (*image_size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-c", script, "model", "a.png", "classes.png"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    classes = np.asarray(Image.open(tmp_path / "classes.png"))
    assert classes.shape == image_size
    scale = min(SIZE[0] / image_size[0], SIZE[1] / image_size[1], 1)
    height, width = (int(side * scale) for side in image_size)
    padded = np.full((*SIZE, 3), 127, np.uint8)
    padded[:height, :width] = np.asarray(Image.fromarray(pixels).resize((width, height)))
    expected = network.predict_classes(padded)[:height, :width]
    expected = Image.fromarray(expected).resize(image_size[::-1], Image.Resampling.NEAREST)
    assert np.mean(classes == np.asarray(expected)) > 0.999  # The runtimes round differently.
