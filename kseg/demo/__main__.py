"""The main job from end to end, on scenes that the program draws: python -m kseg.demo (make demo).

It draws aerial-looking scenes, converts and checks them, trains a DeepLabv3+ with MobileNetV2 and
KSAC from random weights, measures it on held-out scenes beside a nearest-mean-colour classifier,
draws its predictions and exports it: every part as for real photographs, only the data are small.
Each run begins anew.
"""

from absl import flags

from kseg import cli
from kseg.demo.steps import RECIPE, demo


def define_flags() -> None:
    flags.DEFINE_string("output_dir", "runs/demo", "Folder of the demo; an earlier one goes.")
    flags.DEFINE_integer("train_scenes", 720, "Scenes to train on.", 1)
    flags.DEFINE_integer("val_scenes", 48, "Held-out scenes.", 1)
    flags.DEFINE_string("recipe", str(RECIPE), "Flagfile of the experiment.")


def main(values: flags.FlagValues) -> int:
    cli.require(values, "output_dir", "recipe")
    return demo(
        values.output_dir,
        train_scenes=values.train_scenes,
        val_scenes=values.val_scenes,
        recipe=values.recipe,
    )


if __name__ == "__main__":
    cli.run(main, define_flags)
