"""The exported model behind TensorFlow Serving's protocol, asked by the client of README."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kseg import export as exporting
from kseg.data.datasets import LabelSet
from kseg.data.records import decode_image
from tests.data.shards import encoded as encode
from tests.formats.networks import classes, photographs, picture, small_network

pytest.importorskip("tensorflow_serving.apis", reason="needs the extra serving")

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.formats.prediction_server import serving

pytestmark = pytest.mark.slow
README = Path(__file__).parents[2] / "docs" / "serving.md"
LABELS = LabelSet(names=("a", "b", "c"), colours=((0, 0, 0), (9, 9, 9), (99, 99, 99)))


@pytest.fixture(scope="module")
def model():
    return small_network()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return exporting.export(model, LABELS, tmp_path_factory.mktemp("kseg"), max_pixels=10**6)


def client_of_readme(address):
    """The Python block of README that speaks gRPC, sent to another address."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (client,) = [block for block in blocks if "import grpc" in block]
    assert "localhost:8500" in client
    return client.replace("localhost:8500", address)


def assert_right(answer, model, contents):
    image = decode_image(contents).numpy()[np.newaxis]
    assert answer.shape == image.shape[:3]
    assert np.mean(answer != classes(model, image)) < 1e-3


def test_the_client_of_readme_gets_the_classes_of_a_photograph(
    model, exported, real_data, tmp_path, monkeypatch
):
    (contents,) = photographs(real_data, 1)
    (tmp_path / "a.jpg").write_bytes(contents)
    monkeypatch.chdir(tmp_path)
    with serving(exported) as address:
        names = {}
        exec(client_of_readme(address), names)
    assert_right(names["classes"], model, contents)


def test_after_bad_requests_the_server_answers_as_before(model, exported):
    good = encode(picture(33, 40, seed=2))
    bad = [b"", b"no picture", good[:-200], encode(picture(1200, 1000, seed=0)), good[:20]]
    with serving(exported) as address, grpc.insecure_channel(address) as channel:
        server = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask(contents):
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "encoded"
            request.inputs["encoded"].CopyFrom(tf.make_tensor_proto([contents]))
            return tf.make_ndarray(server.Predict(request, timeout=60).outputs["classes"])

        for contents in bad:
            with pytest.raises(grpc.RpcError) as caught:
                ask(contents)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert_right(ask(good), model, good)


def test_tensorflow_serving_itself_answers(model, exported):
    program = shutil.which("tensorflow_model_server")
    if program is None:
        pytest.skip("tensorflow_model_server is not on PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/models/kseg"
    process = subprocess.Popen(
        [program, "--port=0", f"--rest_api_port={port}", "--model_name=kseg",
         f"--model_base_path={exported.parent}"],
    )  # fmt: skip
    try:
        for _ in range(120):
            try:
                if b"AVAILABLE" in urllib.request.urlopen(url, timeout=5).read():
                    break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, "the server ended"
            time.sleep(1)
        contents = encode(picture(33, 40, seed=2))
        asked = {
            "signature_name": "encoded",
            "instances": [{"encoded": {"b64": b64encode(contents).decode()}}],
        }
        answer = urllib.request.urlopen(f"{url}:predict", json.dumps(asked).encode(), timeout=60)
        assert_right(np.array(json.load(answer)["predictions"], np.uint8), model, contents)
    finally:
        process.terminate()
        process.wait(timeout=60)
