"""Exported models served over TensorFlow Serving's protocol, with the client of the docs."""

import json
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

from kseg.data.datasets import LabelSet
from kseg.data.records import decode_image
from kseg.export import export
from tests.data.shards import encoded as encode
from tests.documents import python_blocks
from tests.formats.networks import photographs, predicted_classes, small_network, smooth_image

pytest.importorskip("tensorflow_serving.apis", reason="needs the extra serving")

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.formats.prediction_server import serving

pytestmark = pytest.mark.slow
GUIDE = Path(__file__).parents[2] / "docs" / "serving.md"
LABELS = LabelSet(names=("a", "b", "c"), colours=((0, 0, 0), (9, 9, 9), (99, 99, 99)))


@pytest.fixture(scope="module")
def model():
    return small_network()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(model, LABELS, tmp_path_factory.mktemp("kseg"), max_pixels=10**6)


def documented_client(address):
    """The gRPC client in docs/serving.md, with another address."""
    blocks = python_blocks(GUIDE)
    (client,) = [block for block in blocks if "import grpc" in block]
    assert "localhost:8500" in client
    return client.replace("localhost:8500", address)


def assert_correct(classes, model, contents):
    image = decode_image(contents).numpy()[np.newaxis]
    assert classes.shape == image.shape[:3]
    assert np.mean(classes != predicted_classes(model, image)) < 1e-3


def test_the_documented_client_gets_the_classes_of_a_photograph(
    model, exported, real_data, tmp_path, monkeypatch
):
    (contents,) = photographs(real_data, 1)
    (tmp_path / "a.jpg").write_bytes(contents)
    monkeypatch.chdir(tmp_path)
    with serving(exported) as address:
        names = {}
        exec(documented_client(address), names)
    assert_correct(names["classes"], model, contents)


def test_the_server_answers_correctly_after_bad_requests(model, exported):
    good = encode(smooth_image(33, 40, seed=2))
    bad = [b"", b"no image", good[:-200], encode(smooth_image(1200, 1000, seed=0)), good[:20]]
    with serving(exported) as address, grpc.insecure_channel(address) as channel:
        server = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def request_classes(contents):
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "encoded"
            request.inputs["encoded"].CopyFrom(tf.make_tensor_proto([contents]))
            return tf.make_ndarray(server.Predict(request, timeout=60).outputs["classes"])

        for contents in bad:
            with pytest.raises(grpc.RpcError) as caught:
                request_classes(contents)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert_correct(request_classes(good), model, good)


def test_tensorflow_serving_itself_serves_the_model(model, exported):
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
                assert process.poll() is None, "the server has exited"
            time.sleep(1)
        contents = encode(smooth_image(33, 40, seed=2))
        request = {
            "signature_name": "encoded",
            "instances": [{"encoded": {"b64": b64encode(contents).decode()}}],
        }
        response = urllib.request.urlopen(
            f"{url}:predict", json.dumps(request).encode(), timeout=60
        )
        assert_correct(np.array(json.load(response)["predictions"], np.uint8), model, contents)
    finally:
        process.terminate()
        process.wait(timeout=60)
