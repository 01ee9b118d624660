"""How programs end and begin: errors of the user are one line, and TensorFlow starts quietly."""

import contextlib
import errno
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from kseg import cli
from kseg.errors import UserError
from tests.flags_test import PROGRAMS

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = """
from absl import flags
from kseg import cli

def define_flags():
    flags.DEFINE_string("output", "", "A file.")

def main(values):
    {}

cli.run(main, define_flags, less_memory="Less is needed with `--tile`")
"""


def python(*arguments, **variables):
    """Runs Python in the repository, by default without Keras, and returns the finished process."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY, capture_output=True, text=True,
        env=os.environ | {"KSEG_WITHOUT_KERAS": "1"} | variables,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--outptu=x", "error: Unknown command line flag 'outptu'. Did you mean: output?"),
        ("--flagfile=no.flags", "error: Unable to open flagfile: [Errno 2] No such file"),
        ("--nooutput", "error: Unknown command line flag 'nooutput'"),
    ],
)
def test_a_flag_that_is_wrong_is_one_line(argument, line):
    done = python("-c", PROGRAM.format("pass"), argument)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.endswith("`--help` lists the flags\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "output"),
    [
        (b"\xef\xbb\xbf--output=x\r\n", "x"),
        (b"\xef\xbb\xbf# a comment\n--output=x\n", "x"),
        (b"\xef\xbb\xbf--flagfile=inner.flags\n", "inner"),
    ],
)
def test_a_flagfile_may_begin_with_a_byte_order_mark(content, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("inner.flags").write_bytes(b"\xef\xbb\xbf--output=inner\n")
    Path("outer.flags").write_bytes(content)
    assert cli.with_flagfiles(["--a", "--flagfile=outer.flags"]) == ["--a", f"--output={output}"]


def test_a_flagfile_of_another_encoding_is_one_line(tmp_path):
    path = tmp_path / "utf_16.flags"
    path.write_text("--output=x\n", encoding="utf-16")
    done = python("-c", PROGRAM.format("pass"), f"--flagfile={path}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and str(path) in done.stderr


def test_an_interruption_is_one_line_and_the_status_of_shells():
    done = python("-c", PROGRAM.format("raise KeyboardInterrupt"))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("open('/nowhere/x')", "error: /nowhere/x cannot be opened: No such file or directory"),
        (
            "raise OSError(28, 'full', 'x.npz')",
            "error: x.npz cannot be written: No space left on device",
        ),
        (
            "raise OSError(28, 'full')",
            "error: A file cannot be written: No space left on device",
        ),
        ("raise MemoryError", "error: Out of memory. Less is needed with `--tile`"),
    ],
)
def test_an_error_whose_cause_is_outside_is_one_line_and_status_1(body, line):
    done = python("-c", PROGRAM.format(body))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{line}\n")


@pytest.mark.parametrize("body", ["{}['key']", "raise OSError(2, 'none')", "values.nothing"])
def test_an_error_of_the_program_keeps_its_traceback(body):
    done = python("-c", PROGRAM.format(body))
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "in main" in done.stderr
    assert "error: " not in re.sub(r"\w+Error: ", "", done.stderr)


@contextlib.contextmanager
def written(*outputs, done=""):
    with pytest.raises(UserError) as caught, cli.writing(dict(outputs), done):
        yield caught


def test_an_error_of_writing_names_the_flag_of_the_output():
    with written(("report", "runs/x/eval.json"), done="Nothing was written.") as caught:
        raise OSError(errno.EACCES, "no", "runs/x/eval.csv")
    reason = os.strerror(errno.EACCES)
    assert str(caught.value) == (
        f"runs/x/eval.csv cannot be written: {reason}. Nothing was written. `--report` can name "
        "another place"
    )


def test_of_several_outputs_the_one_with_the_file_is_named():
    outputs = ("output_dir", "a/predicted"), ("vectors", "b/out.gpkg")
    with written(*outputs) as caught:
        raise OSError(errno.ENOSPC, "full", "b/out.gpkg")
    assert "`--vectors`" in str(caught.value) and "`--output_dir`" not in str(caught.value)
    with written(*outputs) as caught:
        raise OSError(errno.EROFS, "no", "a/predicted/.partial-1/variables/part-0")
    assert str(caught.value).startswith("a/predicted cannot be written")
    with written(*outputs) as caught:  # without a name: the first
        raise OSError(errno.ENOSPC, "full")
    assert str(caught.value).startswith("a/predicted cannot be written")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full", "/tmp/other/x"), KeyError("x"), UserError("text")],
    ids=repr,
)
def test_errors_of_other_files_and_of_the_program_are_left_as_they_are(error):
    with pytest.raises(type(error)) as caught, cli.writing({"output": "runs/x/y.json"}):
        raise error
    assert caught.value is error


def test_the_flags_that_need_less_memory_exist():
    explained = 0
    for name in PROGRAMS:
        program = importlib.import_module(name)
        text = getattr(program, "LESS_MEMORY", "")
        if not text:
            continue
        explained += 1
        source = Path(program.__file__).read_text("utf-8")
        assert re.search(r"cli\.run\(.*less_memory=LESS_MEMORY|explained\(LESS_MEMORY\)", source)
        before = set(flags.FLAGS)
        program.define_flags()
        try:
            named = re.findall(r"`--(\w+)", text)
            assert named and set(named) <= set(flags.FLAGS), text
        finally:
            for flag in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, flag)
    assert explained >= 6


HELD = """
import os, sys
from kseg.cli import start
print("before", file=sys.stderr, flush=True)
with start._without_start_lines():
    os.write(2, b"I0000 00:00:1.5  1 port.cc:153] oneDNN custom operations are on.\\n")
    os.write(2, b"E0000 00:00:1.5  1 cuda_platform.cc:52] failed call to cuInit: (303)\\n")
    os.write(2, b"E0000 00:00:1.5  1 cuda_platform.cc:52] failed call to cuInit: (999)\\n")
    os.write(2, b"W0000 00:00:1.5  1 gpu_device.cc:1] Cannot dlopen some GPU libraries.\\n")
    {}
print("after", file=sys.stderr)
"""


def test_lines_of_the_start_are_left_out_and_others_kept_in_order():
    done = python("-c", HELD.format("pass"))
    starts = [line[:5] for line in done.stderr.splitlines()]
    assert done.returncode == 0 and starts == ["befor", "E0000", "W0000", "after"]
    assert "(999)" in done.stderr


@pytest.mark.parametrize("end", ["raise KeyError", "os.abort()", "os.kill(os.getpid(), 9)"])
def test_a_start_that_fails_shows_everything(end):
    """TensorFlow aborts on a processor that it was not built for."""
    done = python("-c", HELD.format(end))
    assert done.returncode != 0
    assert "oneDNN" in done.stderr and "(303)" in done.stderr and "dlopen" in done.stderr
    assert "after" not in done.stderr


def test_a_closed_stream_of_errors_is_no_problem():
    body = (
        "import os\nfrom kseg.cli import start\nos.close(2)\n"
        "with start._without_start_lines(): print(1)"
    )
    assert python("-c", body).stdout == "1\n"


def program(*arguments, **variables):
    """Runs a program as a user does, with TensorFlow's own log level unless one is given."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("TF_CPP_MIN_LOG_LEVEL", "KSEG_WITHOUT_KERAS", "KSEG_PROGRAM")
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, env=environment | variables,
    ).stderr  # fmt: skip


PROGRAM_THAT_LOOKS = """
import sys
import kseg
packages = ("keras.src", "matplotlib", "sklearn")
print([name for name in packages if name in sys.modules], file=sys.stderr)
import matplotlib, sklearn
"""


def test_a_program_does_not_import_packages_that_it_does_not_use():
    pytest.importorskip("matplotlib", reason="needs the extra test")
    pytest.importorskip("sklearn", reason="needs the extra test")
    printed = program("-c", PROGRAM_THAT_LOOKS, KSEG_PROGRAM="1", KERAS_BACKEND="tensorflow")
    assert printed == "['keras.src']\n"


def test_a_program_prints_no_line_of_tensorflow():
    output = program("-m", "kseg.evaluate", "--model_dir=nowhere", TF_ENABLE_ONEDNN_OPTS="1")
    (line,) = output.splitlines()
    assert line.startswith("error: There is no run in nowhere")


def test_predictions_load_fiona_before_tensorflow():
    """Otherwise fiona uses TensorFlow's SQLite and writes GeoPackages without spatial indexes."""
    pytest.importorskip("fiona", reason="needs the extra geo")
    log = program("-X", "importtime", "-m", "kseg.predict", "--help", KERAS_BACKEND="tensorflow")
    imported = [line.split("|")[-1].strip() for line in log.splitlines()]
    assert imported.index("fiona") < imported.index("tensorflow")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        pytest.param(
            ["-m", "kseg.evaluate", "--model_dir=nowhere", "--verbosity=0"],
            {},
            marks=pytest.mark.slow,
        ),
        (["-m", "kseg.evaluate", "--model_dir=nowhere"], {"TF_CPP_MIN_LOG_LEVEL": "0"}),
        (["-c", "import kseg, tensorflow"], {}),
    ],
    ids=["verbosity", "level", "library"],
)
def test_the_lines_are_shown_if_they_are_asked_for_and_to_users_of_the_library(
    arguments, variables
):
    # Without the variable, TensorFlow prints the line on processors with AVX-512 only.
    assert "oneDNN" in program(*arguments, TF_ENABLE_ONEDNN_OPTS="1", **variables)


def test_the_folder_of_the_user_is_expanded_in_the_values_of_flags(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ["--model_dir=~/runs/x", "-data_dir=~/y", "--text=a~/b", "--classes=~", "~/z"]
    assert cli.with_flagfiles(given) == [
        f"--model_dir={tmp_path}/runs/x", f"-data_dir={tmp_path}/y", *given[2:]
    ]  # fmt: skip


def test_an_input_that_cannot_be_read_is_not_taken_for_the_output():
    error = OSError(errno.EACCES, "no", "data/train.manifest.json")
    with pytest.raises(OSError), cli.writing({"output_dir": "study"}):
        raise error


@pytest.mark.parametrize("given", ["", "false"])
def test_tensorflow_takes_the_memory_of_a_gpu_as_it_needs_it(given):
    body = "import os; print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    variables = {"TF_FORCE_GPU_ALLOW_GROWTH": given} if given else {}
    assert python("-c", PROGRAM.format(body), **variables).stdout.strip() == (given or "true")
