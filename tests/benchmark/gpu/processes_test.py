"""Processes of the benchmark of a GPU: their messages, their end, and failing tasks."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kseg.benchmark import plain, timing
from kseg.benchmark.gpu import child, measurements, processes, tasks
from kseg.benchmark.gpu.tasks import ONE_CONV, Settings, Task
from kseg.benchmark.peers.torch_networks import MARK
from kseg.files import _start
from kseg.layers.kernels import forms, shared_atrous_conv

KERNEL = Task("kernels", tasks.FIVE_RATES, "kseg", tasks.FORWARD, "float32", False)


def messages(code, tmp_path, seconds=60.0):
    return processes.messages([sys.executable, "-c", code], seconds, tmp_path / "part.log")


def test_messages_are_read_and_the_rest_is_logged(tmp_path):
    code = """
import sys
print("compiling")
print('kseg-benchmark {"rows": [1]}', flush=True)
sys.exit("a reason")
"""
    assert list(messages(code, tmp_path)) == [{"rows": [1]}, {"ended": 1}]
    log = (tmp_path / "part.log").read_text()
    assert "compiling" in log and "a reason" in log


def test_a_process_that_ends_well_has_the_status_0(tmp_path):
    code = "import atexit, time; atexit.register(time.sleep, 0.5); print(end='', flush=True)"
    assert list(messages(code, tmp_path)) == [{"ended": 0}]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_process_ends_with_those_it_has_started(tmp_path, is_closed):
    """At the time limit, and earlier if the caller reads no further."""
    code = """
import subprocess, sys, time
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('kseg-benchmark {"rows": [%d]}' % started.pid, flush=True)
time.sleep(600)
"""
    begun = time.monotonic()
    received = messages(code, tmp_path, seconds=60.0 if is_closed else 3.0)
    (number,) = next(received)["rows"]
    assert _start(number) is not None
    if is_closed:
        received.close()
    else:
        assert list(received) == [{"ended": processes.TIME_LIMIT}]
        assert time.monotonic() - begun >= 3
    deadline = time.monotonic() + 10
    while _start(number) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _start(number) is None and time.monotonic() - begun < 50


def test_the_temporary_files_of_a_process_are_removed_with_it(tmp_path):
    code = """
import tempfile, time
print('kseg-benchmark {"rows": ["%s"]}' % tempfile.mkdtemp(), flush=True)
time.sleep(600)
"""
    first, last = messages(code, tmp_path, seconds=3.0)
    assert last == {"ended": processes.TIME_LIMIT}
    (folder,) = map(Path, first["rows"])
    assert folder.is_absolute() and not folder.exists()


def test_the_request_reaches_the_process_of_each_part(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(
        processes, "messages", lambda command, *_: iter(commands.append(command) or ())
    )
    for part in ("kernels", "smp"):
        list(
            processes.start(
                part, [KERNEL], Settings(), 9.0, log=tmp_path / "log", torch_python="other/python"
            )
        )
    ours, torch = commands
    assert ours[:3] == [sys.executable, "-m", "kseg.benchmark.gpu.child"]
    assert torch[0] == "other/python" and torch[1].endswith("torch_networks.py")
    assert '"size": 513' in torch[2] and '"what": "conv, 5 rates"' in torch[2]


def test_a_failing_task_is_named_in_its_row(monkeypatch):
    def fail(error):
        def measure(task, settings):
            raise error

        monkeypatch.setitem(child.MEASUREMENTS, "kernels", measure)
        (row,) = child.results(KERNEL, Settings())
        return row["note"]

    full = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]")
    assert fail(full) == "failed: Out of memory: OOM when allocating tensor with shape[9]"
    assert fail(RuntimeError("first\nsecond")) == "failed: RuntimeError: first"


def test_a_child_goes_on_after_a_task_that_failed(monkeypatch, capsys):
    def measure(task, settings):
        if task.form == "kseg":
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        yield {"images": str(settings.size)}

    monkeypatch.setitem(child.MEASUREMENTS, "kernels", measure)
    plain = dataclasses.replace(KERNEL, form="plain")
    settings = {"size": 65, "precision": ["float32"]}
    child.main({"tasks": [vars(KERNEL), vars(plain)], "settings": settings})
    lines = [line.removeprefix(MARK) for line in capsys.readouterr().out.splitlines()]
    begun, failed, measured = map(json.loads, lines)
    assert begun["device"] and begun["versions"]["keras"] == keras.__version__
    assert failed["rows"] == [{"note": "failed: Out of memory: OOM when allocating"}]
    assert measured == {"task": vars(plain), "rows": [{"images": "65"}]}


def results(what, form, size):
    """Outputs and gradients of a form of a kernel, or only the outputs of a module."""
    made = measurements._form(Task("kernels", what, form, tasks.BOTH, "float32", False), size)
    if what.startswith("module"):  # Gradients jump where a ReLU is at its kink.
        return made.call(made.tensors, False)
    return timing.compiled(made.call, made.tensors, backward=True)()


@pytest.mark.parametrize(
    ("what", "form"),
    [
        *((what, form) for what, form in tasks.KERNELS if form == "plain" and what != ONE_CONV),
        ("average_pool", tasks.TWO_POOLINGS),
        ("average_pool", tasks.PREFIX_SUMS),
        (tasks.FIVE_RATES, tasks.ROUNDED),
    ],
)
def test_the_forms_of_a_kernel_compute_the_same(what, form, monkeypatch):
    monkeypatch.setitem(measurements._DEPTHWISE, tasks.LINES, [(1, 4), (4, 1)])
    # The gradient of TensorFlow's pooling is wrong on some CPUs if the window exceeds the map.
    size = (1, 28, 27, 3) if what == "average_pool" else (2, 5, 6, 8)
    pairs = zip(results(what, "kseg", size), results(what, form, size), strict=True)
    for ours, other in pairs:
        assert np.abs(other).max() > 0.01
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-4)


def test_small_windows_are_averaged_by_the_same_pooling_in_all_forms(monkeypatch):
    sizes = []
    pool = measurements._of_large_windows(lambda features, size: sizes.append(size))
    for size in (3, 5, 7):
        pool(ops.ones((1, 9, 9, 1)), size)
    assert sizes == [7]


@pytest.mark.parametrize("form", ["kseg", tasks.ROUNDED])
def test_the_rounded_products_are_those_without_xla(form, monkeypatch):
    def product(left, right):
        products.append(left.dtype)
        return tf.matmul(tf.cast(left, "float32"), tf.cast(right, "float32"))

    products = []
    monkeypatch.setattr(shared_atrous_conv, "float32_product", product)
    task = Task("kernels", tasks.FIVE_RATES, form, tasks.BOTH, "bfloat16", True)
    made = measurements._form(task, (2, 5, 6, 8))
    with forms.assumed(device="GPU", xla=True):
        maps = timing.compiled(made.call, made.tensors, backward=True)()[:5]
    assert len(products) == (form == "kseg")
    exact = plain.plain_shared_atrous_conv(
        *(tf.cast(tensor, "float32") for tensor in made.tensors), (1, 6, 12, 18, 24)
    )
    assert 0 < timing.difference(exact, maps) < 0.02


def test_one_convolution_is_that_of_rate_1():
    one = Task("kernels", tasks.ONE_CONV, "plain", tasks.FORWARD, "float32", False)
    made = measurements._form(one, (2, 5, 6, 8))
    (output,) = made.call(made.tensors, False)
    expected = ops.conv(*made.tensors, padding="same")
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_a_kernel_is_measured_on_features_of_output_stride_16(monkeypatch):
    monkeypatch.setattr(measurements, "_CHANNELS", 8)
    settings = Settings(size=65, batch=2, repetitions=3, block_seconds=0.0)
    (row,) = measurements.kernels(KERNEL, settings)
    assert row["images"] == "2x5x5x8" and 0 < row["ms"][0] <= row["ms"][1] <= row["ms"][2]
