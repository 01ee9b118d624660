"""Trains the network of one experiment; the same command goes on where a stopped run stood.

python -m kseg.train --flagfile=experiments/X.flags --data_dir=DIR --model_dir=runs/X
"""

import sys

from absl import flags

from kseg import cli
from kseg.runs import experiment as experiments
from kseg.runs.machines import join
from kseg.train import supervisor
from kseg.train.trainer import train


def define_flags() -> None:
    experiments.define_flags()
    flags.DEFINE_bool("overwrite", False, "Begin anew where the folder holds a run already.")
    flags.DEFINE_string("coordinator", "", "Several processes: host:port of process 0.")
    flags.DEFINE_integer(
        "num_processes", 1, "Processes that train together, on JAX; 0: as the cluster says.", 0
    )
    flags.DEFINE_integer("process_id", -1, "Number of this process, from 0.")


def main(values: flags.FlagValues) -> int:
    cli.require(values, "data_dir", "model_dir")
    experiment = experiments.from_flags(values)

    def work() -> int:
        machines = join(values.coordinator, values.num_processes, values.process_id)
        return train(experiment, overwrite=values.overwrite, machines=machines)

    return work() if values.num_processes == 1 else supervisor.run(work, sys.argv[1:])


if __name__ == "__main__":
    cli.run(main, define_flags)
