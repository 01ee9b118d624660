"""The whole job on scenes that the program draws: `python -m kseg.demo` (`make demo`).

It draws aerial-looking scenes, converts and checks them, trains a DeepLabv3+ with MobileNetV2 and
KSAC from random weights, evaluates it on held-out scenes beside a nearest-mean-colour classifier,
draws its predictions and exports it. Everything works as for real photographs, only the data are
small. Each run begins again from the start.
"""

from absl import flags

from kseg import cli
from kseg.demo.steps import RECIPE, demo
from kseg.runs.experiment_flags import from_flagfile


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("output_dir", "runs/demo", "Folder of the demo; replaces an earlier demo.")
    flags.DEFINE_integer("train_scenes", 720, "Number of scenes to train on.", 1)
    flags.DEFINE_integer("val_scenes", 48, "Number of held-out scenes.", 1)
    flags.DEFINE_string("recipe", "", "Flagfile of another experiment. Empty: that of the demo.")


def main(values: flags.FlagValues) -> int:
    """Runs the demo, and returns the exit status."""
    cli.require(values, "output_dir")
    recipe = from_flagfile(values.recipe) if values.recipe else RECIPE
    with cli.writing({"output_dir": values.output_dir}):
        return demo(
            values.output_dir,
            train_scenes=values.train_scenes,
            val_scenes=values.val_scenes,
            recipe=recipe,
        )


if __name__ == "__main__":
    cli.run(main, define_flags)
