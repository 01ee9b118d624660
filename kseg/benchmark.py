"""Measures parts of kseg: `python -m kseg.benchmark --what=layers`."""

from absl import flags

from kseg import program
from kseg.benchmarks import layers, models, zoo
from kseg.errors import UserError

# What can be measured: name of the flag's value -> function of (repetitions, output, only, shape).
BENCHMARKS = {"layers": layers.run, "models": models.run, "zoo": zoo.run}


def define_flags() -> None:
    flags.DEFINE_enum("what", "layers", sorted(BENCHMARKS), "What to measure.")
    flags.DEFINE_integer(
        "repetitions", 9, "Times that each call is measured; medians are shown.", lower_bound=1
    )
    flags.DEFINE_list(
        "only", [], "Modules (layers), groups (models) or networks (zoo) to measure; empty: all."
    )
    flags.DEFINE_list(
        "shape",
        [],
        "batch,height,width,channels of features (layers), batch,height,width (models).",
    )
    flags.DEFINE_string("output", "", "File, .csv or .json, to write the rows to as well.")


def main(values: flags.FlagValues) -> None:
    try:
        shape = tuple(int(size) for size in values.shape)
    except ValueError as error:
        raise UserError(
            f"`--shape` must be integers joined by commas. Received: {','.join(values.shape)}"
        ) from error
    BENCHMARKS[values.what](values.repetitions, values.output, tuple(values.only), shape)


if __name__ == "__main__":
    program.run(main, define_flags)
