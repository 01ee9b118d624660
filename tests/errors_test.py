"""Which errors are explained in one line, and the messages about optional packages."""

import errno
import importlib.metadata
import os
import re
import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.errors import UserError, explanation, first_line, missing_extra
from tests.conftest import REPOSITORY

HUGE = 4_000_000  # A square of so many numbers has 58 TiB.


def caught(function):
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def in_a_graph():
    @tf.function
    def draw(size):
        return tf.random.uniform([size, size], name="drawn")

    return draw(tf.constant(HUGE))


def while_tracing():
    def allocate():
        np.empty((HUGE, HUGE))

    return tf.data.Dataset.range(1).map(lambda number: allocate() or number)


def on_jax():
    jax = pytest.importorskip("jax")
    return jax.numpy.zeros((HUGE, HUGE)).block_until_ready()


@pytest.mark.parametrize(
    "function",
    [
        # TensorFlow waits ten seconds for memory on the host.
        pytest.param(lambda: tf.zeros([HUGE, HUGE]), marks=pytest.mark.slow, id="eager"),
        pytest.param(in_a_graph, marks=pytest.mark.slow, id="graph"),
        pytest.param(while_tracing, id="tracing"),
        pytest.param(lambda: np.empty((HUGE, HUGE)), id="numpy"),
        pytest.param(on_jax, id="jax"),
    ],
)
def test_out_of_memory_is_explained_with_what_did_not_fit_and_what_helps(function):
    message = explanation(caught(function), "Less is needed with `--tile`")
    assert message.startswith("Out of memory") and "\n" not in message
    assert str(HUGE) in message or str(4 * HUGE**2) in message  # JAX names the bytes.
    assert message.endswith(". Less is needed with `--tile`")
    assert "job:" not in message and "{{" not in message


def test_the_operation_of_a_graph_that_runs_out_of_memory_is_named():
    error = tf.errors.ResourceExhaustedError(
        None,
        None,
        "Graph execution error:\n\nDetected at node net/aspp/conv2d defined at (most recent call "
        'last):\n  File "run_out_of_memory.py", line 1, in f\n\nOOM when allocating tensor with '
        "shape[8,256,65,65] and type float on /job:localhost/replica:0/task:0/device:GPU:0 by "
        "allocator GPU_0_bfc\n\t [[{{node net/aspp/conv2d}}]]\nHint: ... when OOM happens\n [Op:f]",
    )
    assert explanation(error) == (
        "Out of memory in net/aspp/conv2d: OOM when allocating tensor with shape[8,256,65,65] and "
        "type float on GPU:0 by allocator GPU_0_bfc"
    )


def test_memory_errors_without_a_text_are_explained():
    for error in (MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")):
        assert explanation(error) == "Out of memory"


def test_the_first_line_of_an_error_is_its_text_or_its_type():
    assert first_line(ValueError("\na\nb")) == "a"
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(ValueError("Graph execution error:\n")) == "Graph execution error:"


class Refusing(keras.layers.Layer):
    def call(self, features):
        tf.debugging.assert_less(tf.reduce_max(features), 0.5, message="too large")
        return features


class Mistaken(keras.layers.Layer):
    def call(self, features):
        return features + tf.ones([3])


def predicted(layer):
    model = keras.Sequential([keras.Input((None,)), layer])
    return model.predict(np.ones([2, 4]), verbose=0)


@tf.function
def in_the_input():
    numbers = tf.data.Dataset.range(1)
    return next(iter(numbers.map(lambda number: tf.reshape(tf.ones([6]), [number, 2]))))


@tf.function
def in_python():
    def fail():
        raise KeyError("a key")

    return tf.py_function(fail, [], tf.float32)


@tf.function
def traced():
    return tf.ones([4]) + tf.ones([3])


@pytest.mark.parametrize(
    ("function", "heading", "reason"),
    [
        (lambda: predicted(Refusing()), "Graph exec", "assertion failed: [too large] "),
        (in_the_input, "Graph exec", "Error in user-defined function "),
        (in_python, "Graph exec", "KeyError: 'a key'"),
        (lambda: predicted(Mistaken()), "Exception encountered", "Dimensions must be equal, but"),
        (traced, "in user code:", "ValueError: Dimensions must be equal, but "),
        (lambda: tf.reshape(tf.ones([6]), [4]), "{{function_node", "Input to reshape is a tensor "),
    ],
    ids=("assertion", "input", "python", "layer", "tracing", "eager"),
)
def test_the_first_line_of_an_error_skips_the_heading_of_tensorflow_and_keras(
    function, heading, reason
):
    error = caught(function)
    assert str(error).startswith(heading)
    assert first_line(error).startswith(reason), first_line(error)


def test_errors_of_the_file_system_are_explained_with_the_file_and_the_reason(tmp_path):
    (tmp_path / "file").touch()
    for name, number in (
        ("missing/x", errno.ENOENT),
        ("file/x", errno.ENOTDIR),
        ("x" * 999, errno.ENAMETOOLONG),
    ):
        path = tmp_path / name
        expected = f"{path} cannot be opened: {os.strerror(number)}"
        assert explanation(caught(lambda path=path: open(path, "w"))) == expected
        assert explanation(caught(lambda path=path: tf.io.TFRecordWriter(str(path)))) == expected
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        error = OSError(number, "A text with\nlines", "x.npz")
        assert explanation(error) == f"x.npz cannot be written: {os.strerror(number)}"
    full = tf.errors.ResourceExhaustedError(
        None, None, "{{function_node __wrapped__Save}} /x/part-0; No space left on device [Op:Save]"
    )
    assert explanation(full) == "/x/part-0 cannot be written: No space left on device"


def test_other_errors_are_errors_of_the_program():
    for error in (
        OSError(errno.ENOENT, "No such file or directory"),  # of which file?
        OSError("a text"),
        OSError(errno.EPIPE, "Broken pipe", "x"),
        KeyError("allocate"),
        ValueError("out of memory"),
        UserError("`--flag` must be given"),
        caught(lambda: tf.constant(1) + tf.constant("text")),
        tf.errors.ResourceExhaustedError(None, None, "Too many requests"),
    ):
        assert explanation(error, "Less is needed") is None, error


@pytest.fixture(scope="module")
def extras():
    """The extras of `setup.py`, as it hands them to setuptools."""
    import setuptools

    received = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", received.update)
        runpy.run_path(str(REPOSITORY / "setup.py"))
    return received["extras_require"]


def requires(extras):
    """What `importlib.metadata.requires` gives for an installed kseg, marker included."""
    return ["numpy>=2"] + [
        f'{package}; extra == "{name}"' for name, packages in extras.items() for package in packages
    ]


def test_the_message_names_every_package_of_the_extra_and_no_other(extras, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires(extras))
    assert extras["crf"] and extras["onnx"]
    for name, packages in extras.items():
        message = str(missing_extra(name, "`--flag`"))
        quoted = " ".join(f'"{package}"' for package in packages)
        assert message == f'`--flag` needs the extra "{name}": pip install {quoted}'


def test_the_reason_of_a_failed_import_is_kept():
    error = missing_extra("geo", "reading a TIFF", ImportError("libgdal is broken"))
    assert isinstance(error, UserError)
    assert "libgdal is broken" in str(error)


def test_the_installed_kseg_names_the_packages():
    """The metadata are those of this environment's installation."""
    assert "pydensecrf2" in str(missing_extra("crf", "`--crf`"))


def test_without_an_installed_kseg_the_message_points_to_setup_py(monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_installed)
    assert "setup.py" in str(missing_extra("crf", "`--crf`"))


def test_every_extra_that_the_code_asks_for_exists(extras):
    sources = (*(REPOSITORY / "kseg").rglob("*.py"), *(REPOSITORY / "tfrecords_tools").glob("*.py"))
    calls = (re.findall(r'missing_extra\(\s*"(.+?)"', path.read_text("utf-8")) for path in sources)
    names = {name for found in calls for name in found}
    assert {"crf", "geo", "onnx"} <= names <= set(extras)
