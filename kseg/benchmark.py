"""Measures parts of kseg: `python -m kseg.benchmark --what=layers`."""

from absl import flags

from kseg import program
from kseg.benchmarks import layers

# What can be measured: name of the flag's value -> function of (repetitions, csv path).
BENCHMARKS = {"layers": layers.run}


def define_flags() -> None:
    flags.DEFINE_enum("what", "layers", sorted(BENCHMARKS), "What to measure.")
    flags.DEFINE_integer(
        "repetitions", 9, "Times that each call is measured; medians are shown.", lower_bound=1
    )
    flags.DEFINE_string("csv", "", "File to write the table to as well, with all digits.")


def main(values: flags.FlagValues) -> None:
    BENCHMARKS[values.what](values.repetitions, values.csv)


if __name__ == "__main__":
    program.run(main, define_flags)
