"""Reads an official TF1 checkpoint of DeepLab or slim into the weight file of a backbone:

python -m kseg.import_checkpoint --checkpoint=deeplabv3/model.ckpt --backbone=xception_65
    --output=x65.weights.h5

`--backbone_weights=x65.weights.h5` then trains from it. Prints what became of every variable; with
any missing or of another shape it writes nothing, unless `--allow_missing` insists.

Xception-65 goes in whole. So do MobileNetV2 and slim's ResNets, and compute the same at sizes
k * 16 + 1; at others slim shifts its windows by a pixel, which the backbones here never do. The
stride in the last unit of a ResNet block there is the one in the first unit of the next block
here. A ResNet's stem is turned from RGB to BGR; the means that DeepLab subtracts differ from ours
by less than one of 255 levels. The "beta" ResNets begin with three convolutions that have no
counterpart here: all but these and the convolutions behind them can be taken.
"""

from absl import flags

from kseg import cli
from kseg.errors import UserError
from kseg.import_checkpoint.importer import import_checkpoint, write_weights
from kseg.import_checkpoint.official_names import SCOPES


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string("checkpoint", "", "Prefix of the checkpoint: model.ckpt of *.ckpt.index.")
    flags.DEFINE_string("backbone", "", f"One of {', '.join(sorted(SCOPES))}.")
    flags.DEFINE_string("output", "", "File to write; its name ends in .weights.h5.")
    flags.DEFINE_bool(
        "allow_missing",
        False,
        "Write the file though variables are missing or of another shape; they stay random.",
    )


def main(values: flags.FlagValues) -> int:
    """Imports one checkpoint; returns 1, and writes nothing, if the backbone would not be whole."""
    cli.require(values, "checkpoint", "backbone", "output")
    if not values.output.endswith(".weights.h5"):
        raise UserError(f"`--output` must end in .weights.h5. Received: {values.output}")
    network, report = import_checkpoint(values.checkpoint, values.backbone)
    print(report.text())
    lost = len(report.missing) + len(report.mismatched)
    if lost and not values.allow_missing:
        print(
            f"nothing written: {lost} variables of {values.backbone} would stay random; "
            "--allow_missing writes the file all the same"
        )
        return 1
    write_weights(network, values.output)
    print(f"weights written: {values.output}; train with --backbone_weights={values.output}")
    return 0


if __name__ == "__main__":
    cli.run(main, define_flags)
