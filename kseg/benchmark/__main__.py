"""Measures parts of kseg: `python -m kseg.benchmark --what=layers`."""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
from absl import flags

from kseg import cli
from kseg.benchmark import device, exported, layers, models, train, zoo
from kseg.benchmark import input as input_pipeline
from kseg.benchmark.device import POLICIES
from kseg.benchmark.gpu import processes, report, suite, tasks
from kseg.benchmark.runner import run
from kseg.errors import UserError
from kseg.inference.backend import prepare_backend
from kseg.runs.rules import JIT_COMPILE, require_known

BENCHMARKS = {
    "exported": exported.BENCHMARK,
    "input": input_pipeline.BENCHMARK,
    "layers": layers.BENCHMARK,
    "models": models.BENCHMARK,
    "train": train.BENCHMARK,
    "zoo": zoo.BENCHMARK,
}
# Flags that only some benchmarks take, as arguments of the same names.
_OPTIONS = ("model_dir", "data_dir", "split", "precision", "jit_compile")
# Flags of `--what=gpu`, and those that it does not take.
_GPU_FLAGS = ("size", "batch", "networks", "seconds", "output_dir", "torch_python")
_NOT_GPU_FLAGS = ("shape", "results", "model_dir", "data_dir", "split")
_PATHS = ("output_dir", "torch_python")
LESS_MEMORY = "Less is needed with a smaller `--shape`, or with fewer parts in `--only`"


def define_flags() -> None:
    flags.DEFINE_enum(
        "what",
        "layers",
        sorted((*BENCHMARKS, "gpu")),
        "What to measure. gpu: kernels, networks, the trainer and other projects' networks, within "
        "a time limit; it runs on CPUs as well.",
    )
    flags.DEFINE_integer("repetitions", 9, "How often each call is measured.", lower_bound=1)
    flags.DEFINE_list(
        "only",
        [],
        "Parts to measure: modules (layers, exported), groups (models), stages (input), "
        "words in the names of networks (zoo), step or metric (train), "
        f"{', '.join(tasks.PARTS)} (gpu). Empty: all (exported: aspp and ksac).",
    )
    flags.DEFINE_list(
        "shape",
        [],
        "batch,height,width,channels of the features (layers); batch,height,width of the images "
        "(the others).",
    )
    flags.DEFINE_string(
        "model_dir", "", "exported: folder of a run to export and evaluate, instead of --only."
    )
    flags.DEFINE_string(
        "data_dir",
        "",
        "Folder of TFRecord shards. Empty: pictures that the program draws (input), the run's "
        "own data (exported).",
    )
    flags.DEFINE_string("split", "", "Split of --data_dir. Empty: train (input), val (exported).")
    flags.DEFINE_string(
        "precision",
        "",
        f"Precisions to measure in, of {', '.join(POLICIES)}, separated by commas; the last two "
        "with float32 weights, as in training (layers, models, train, gpu). Empty: float32; gpu: "
        "on a GPU all three.",
    )
    flags.DEFINE_string(
        "jit_compile",
        "",
        f"Whether XLA compiles what is measured on TensorFlow, one of {', '.join(JIT_COMPILE)}, as "
        "in kseg.train (layers, models, train, gpu). Empty: auto; gpu: on a GPU both.",
    )
    _define_gpu_flags()
    flags.DEFINE_string("results", "", "File (.csv or .json) to write the rows to. Empty: none.")
    cli.define_alias("output", "results")


def _define_gpu_flags() -> None:
    defaults = tasks.Settings()
    flags.DEFINE_integer("size", defaults.size, "Height and width of the images.", lower_bound=33)
    flags.DEFINE_integer("batch", defaults.batch, "Images in a batch.", lower_bound=1)
    flags.DEFINE_list("networks", list(tasks.NETWORKS), "Networks to measure.")
    flags.DEFINE_integer(
        "seconds", 360, "Time limit. What is left then is listed as not measured.", lower_bound=1
    )
    flags.DEFINE_string(
        "output_dir", "", "Folder for gpu.json and gpu.md, which are written after every row."
    )
    flags.DEFINE_string(
        "torch_python",
        "",
        "Python of an environment with torch and segmentation-models-pytorch. Empty: the current "
        "one.",
    )
    cli.set_group("--what=gpu", _GPU_FLAGS)


def names(flag: str, received: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Checks the names that a flag holds."""
    for name in received:
        if name not in known:
            raise UserError(f"`--{flag}` must hold names of {', '.join(known)}. Received: {name!r}")
    return tuple(received)


def gpu_command(values: flags.FlagValues) -> str:
    """Returns the command of `--what=gpu`, without the flags that have their defaults.

    Paths are relative to the current folder; a name in capitals stands for those outside of it.
    """
    words = ["python", "-m", "kseg.benchmark", "--what=gpu"]
    for name in ("only", "repetitions", "precision", "jit_compile", *_GPU_FLAGS):
        flag = values[name]
        if flag.value == flag.default:
            continue
        if name in _PATHS and os.path.isabs(flag.value):
            path = Path(flag.value)
            inside = path.is_relative_to(Path.cwd())
            words.append(f"--{name}={path.relative_to(Path.cwd()) if inside else name.upper()}")
        else:
            words.append(flag.serialize())
    backend = keras.config.backend()
    prefix = "" if backend == "tensorflow" else f"KERAS_BACKEND={backend} "
    return prefix + shlex.join(words)


def main(values: flags.FlagValues) -> None:
    # JAX would reserve most of a GPU, which the programs that are measured need as well.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    refused = _NOT_GPU_FLAGS if values.what == "gpu" else _GPU_FLAGS
    for name in refused:
        if values[name].present:
            raise UserError(f"`--what={values.what}` does not take `--{name}`")
    precision = tuple(filter(None, values.precision.split(",")))
    precision = names("precision", precision, tuple(POLICIES))
    if values.jit_compile:
        require_known("jit_compile", values.jit_compile, JIT_COMPILE)
    if values.what == "gpu":
        _measure_gpu(values, precision)
        return
    benchmark = BENCHMARKS[values.what]
    options = {name: values[name].value for name in _OPTIONS if values[name].value}
    for name in options:
        if name not in benchmark.options:
            raise UserError(f"`--what={values.what}` does not take `--{name}`")
    if precision:
        options["precision"] = precision
    run(
        benchmark,
        repetitions=values.repetitions,
        results=values.results,
        only=tuple(values.only),
        shape=cli.numbers(values, "shape", int),
        **options,
    )


def _measure_gpu(values: flags.FlagValues, precision: tuple[str, ...]) -> None:
    cli.require(values, "output_dir")
    parts = names("only", values.only, tasks.PARTS) or tasks.PARTS
    torch_python = values.torch_python
    if torch_python and not shutil.which(torch_python):
        raise UserError(f"`--torch_python` must be a Python. Received: {torch_python!r}")
    prepare_backend()
    settings = tasks.Settings(
        size=values.size,
        batch=values.batch,
        repetitions=values.repetitions,
        precision=precision or tasks.default_precision(),
        jit_compile=values.jit_compile or "auto",
        networks=names("networks", values.networks, tasks.NETWORKS),
        log_every=tasks.Settings.log_every if device.is_gpu() else 5,
    )
    output_dir = Path(values.output_dir)

    def start(part, *arguments):
        log = output_dir / f"{part}.log"
        return processes.start(part, *arguments, log=log, torch_python=torch_python)

    with cli.writing({"output_dir": output_dir}):
        suite.run(
            settings,
            parts=parts,
            seconds=values.seconds,
            output_dir=output_dir,
            start=start,
            command=gpu_command(values),
        )
    print(f"written: {output_dir / report.MARKDOWN}, {output_dir / report.JSON}")


if __name__ == "__main__":
    cli.run(main, define_flags, less_memory=LESS_MEMORY)
