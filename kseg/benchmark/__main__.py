"""Measures parts of kseg: `python -m kseg.benchmark --what=layers`."""

from absl import flags

from kseg import cli
from kseg.benchmark import exported, layers, models, train, zoo
from kseg.benchmark import input as input_pipeline
from kseg.benchmark.runner import run
from kseg.errors import UserError

BENCHMARKS = {
    "exported": exported.BENCHMARK,
    "input": input_pipeline.BENCHMARK,
    "layers": layers.BENCHMARK,
    "models": models.BENCHMARK,
    "train": train.BENCHMARK,
    "zoo": zoo.BENCHMARK,
}
# Flags that only some benchmarks take, as arguments of the same names.
_OPTIONS = ("model_dir", "data_dir", "split")
LESS_MEMORY = "Less is needed with a smaller `--shape`, or with fewer parts in `--only`"


def define_flags() -> None:
    flags.DEFINE_enum("what", "layers", sorted(BENCHMARKS), "What to measure.")
    flags.DEFINE_integer("repetitions", 9, "How often each call is measured.", lower_bound=1)
    flags.DEFINE_list(
        "only",
        [],
        "Parts to measure: modules (layers, exported), groups (models), stages (input), "
        "words in the names of networks (zoo), step or metric (train). Empty: all (exported: aspp "
        "and ksac).",
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
    flags.DEFINE_string("results", "", "File (.csv or .json) to write the rows to. Empty: none.")
    cli.define_alias("output", "results")


def main(values: flags.FlagValues) -> None:
    benchmark = BENCHMARKS[values.what]
    options = {name: values[name].value for name in _OPTIONS if values[name].value}
    for name in options:
        if name not in benchmark.options:
            raise UserError(f"`--what={values.what}` does not take `--{name}`")
    run(
        benchmark,
        repetitions=values.repetitions,
        results=values.results,
        only=tuple(values.only),
        shape=cli.numbers(values, "shape", int),
        **options,
    )


if __name__ == "__main__":
    cli.run(main, define_flags, less_memory=LESS_MEMORY)
