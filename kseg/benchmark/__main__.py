"""Measures parts of kseg: `python -m kseg.benchmark --what=layers`."""

from absl import flags

from kseg import cli
from kseg.benchmark import exported, layers, models, train, zoo
from kseg.benchmark import input as input_pipeline
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
# Flags of data and runs, and which of them take these, as arguments of the same names.
_DATA = {
    "model_dir": ("exported",),
    "data_dir": ("exported", "input"),
    "split": ("exported", "input"),
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
    flags.DEFINE_string(
        "model_dir", "", "exported: run to export and to measure on a split, in place of --only."
    )
    flags.DEFINE_string(
        "data_dir",
        "",
        "Folder of records. input: empty: pictures that are drawn; exported: the run's own.",
    )
    flags.DEFINE_string("split", "", "Split of --data_dir; empty: train (input), val (exported).")
    flags.DEFINE_string("output", "", "File, .csv or .json, to write the rows to as well.")


def main(values: flags.FlagValues) -> None:
    try:
        shape = tuple(int(size) for size in values.shape)
    except ValueError as error:
        raise UserError(
            f"`--shape` must be integers joined by commas. Received: {','.join(values.shape)}"
        ) from error
    options = {name: values[name].value for name in _DATA if values[name].value}
    for name in options:
        if values.what not in _DATA[name]:
            raise UserError(f"`--{name}` is not taken by `--what={values.what}`")
    BENCHMARKS[values.what](values.repetitions, values.output, tuple(values.only), shape, **options)


if __name__ == "__main__":
    cli.run(main, define_flags)
