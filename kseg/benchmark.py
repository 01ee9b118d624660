"""Measures parts of kseg: `python -m kseg.benchmark --what=layers`."""

from absl import flags

from kseg import program
from kseg.benchmarks import exported, layers, models, train, zoo
from kseg.benchmarks import input as input_pipeline
from kseg.errors import UserError

# What can be measured: name of the flag's value -> function of (repetitions, output, only, shape).
BENCHMARKS = {
    "exported": exported.run,
    "input": input_pipeline.run,
    "layers": layers.run,
    "models": models.run,
    "train": train.run,
    "zoo": zoo.run,
}


def define_flags() -> None:
    flags.DEFINE_enum("what", "layers", sorted(BENCHMARKS), "What to measure.")
    flags.DEFINE_integer(
        "repetitions", 9, "Times that each call is measured; medians are shown.", lower_bound=1
    )
    flags.DEFINE_list(
        "only",
        [],
        "What to measure of it: modules (layers, exported), groups (models), stages (input), "
        "networks (zoo), step or metric (train); empty: all (exported: aspp and ksac).",
    )
    flags.DEFINE_list(
        "shape",
        [],
        "batch,height,width,channels of features (layers), batch,height,width (models, train, "
        "exported).",
    )
    flags.DEFINE_string("data_dir", "", "input: folder of records; empty: pictures that are drawn.")
    flags.DEFINE_string("split", "train", "input: split of --data_dir.")
    flags.DEFINE_string("output", "", "File, .csv or .json, to write the rows to as well.")


def main(values: flags.FlagValues) -> None:
    try:
        shape = tuple(int(size) for size in values.shape)
    except ValueError as error:
        raise UserError(
            f"`--shape` must be integers joined by commas. Received: {','.join(values.shape)}"
        ) from error
    options = {}
    if values.what == "input":
        options = {"data_dir": values.data_dir, "split": values.split}
    elif values.data_dir:
        raise UserError(f"`--data_dir` is not taken by `--what={values.what}`")
    BENCHMARKS[values.what](values.repetitions, values.output, tuple(values.only), shape, **options)


if __name__ == "__main__":
    program.run(main, define_flags)
