"""Converts an official TF1 checkpoint of DeepLab or slim into the weight file of a backbone.

    python -m kseg.import_checkpoint --checkpoint=deeplabv3/model.ckpt --backbone=xception_65 \\
        --output=x65.weights.h5

Afterwards `python -m kseg.train --backbone_weights=x65.weights.h5 ...` starts from these weights.
The program reports what happened to every variable. If a variable of the backbone is missing in the
checkpoint or has another shape, nothing is written, unless `--allow_missing` is given.

What can be imported:

    xception_65   All weights; the backbone then computes what the official network computes, at
                  any image size.
    mobilenet_v2  All weights; equal to the official network at image sizes k * 16 + 1. At other
                  sizes slim shifts its windows by a pixel, which the backbones of kseg never do.
    resnet50, resnet101, resnet152
                  All weights of slim's ResNets; equal at image sizes k * 16 + 1 as well. slim has
                  the stride in the last unit of a block, kseg in the first unit of the next block.
                  The kernel of the first convolution is reordered from RGB to BGR. The channel
                  means that DeepLab subtracts differ from those of kseg by less than one of 255
                  levels. The "beta" ResNets begin with three convolutions that have no counterpart
                  in kseg: `--allow_missing` imports all weights except for those three and for the
                  convolutions that read them.

    python -m kseg.import_checkpoint --checkpoint=deeplabv3_mnv2_pascal_quant.tflite \\
        --model_dir=runs/official --statistics_images=VOC2012/JPEGImages

writes a whole network as the folder of a run: an official quantised DeepLabv3 on MobileNetV2 for
the 21 classes of PASCAL VOC. Its batch normalisations, which such a file does not have, get
statistics that are measured on the photographs of `--statistics_images`, so that training can
start from the run (`kseg.train --init_from`). At least 16 are needed, of the kind that the network
was trained on; of more than 64, that many at even distances are read.
"""

from absl import flags

from kseg import cli
from kseg.errors import UserError
from kseg.formats.imports.backbone_weights import import_backbone, write_weights
from kseg.formats.imports.norm_statistics import photographs
from kseg.formats.imports.official_names import SCOPES
from kseg.formats.imports.tflite_network import read_tflite_network
from kseg.runs.imported import write_run


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "checkpoint", "", "Prefix of the checkpoint: model.ckpt for the file model.ckpt.index."
    )
    flags.DEFINE_string(
        "model_dir", "", ".tflite: folder of the run to write, which must be new or empty."
    )
    flags.DEFINE_string(
        "statistics_images",
        "",
        ".tflite: photographs on which the statistics of the batch normalisations are measured: a "
        "folder, a glob, or a .txt file with one path on each line.",
    )
    flags.DEFINE_string("backbone", "", f"One of {', '.join(sorted(SCOPES))}.")
    flags.DEFINE_string("output", "", "File to write; its name must end in .weights.h5.")
    flags.DEFINE_bool(
        "allow_missing",
        False,
        "Write the file even if variables are missing or have another shape; they keep random "
        "values.",
    )


def main(values: flags.FlagValues) -> int:
    """Imports one checkpoint; returns 1 and writes nothing if the backbone would be incomplete."""
    cli.require(values, "checkpoint")
    if values.checkpoint.endswith(".tflite"):
        return _import_tflite(values)
    cli.require(values, "backbone", "output")
    if not values.output.endswith(".weights.h5"):
        raise UserError(f"`--output` must end in .weights.h5. Received: {values.output}")
    network, report = import_backbone(values.checkpoint, values.backbone)
    print(report.text())
    random = len(report.missing) + len(report.mismatched)
    if random and not values.allow_missing:
        print(
            f"Nothing was written: {random} variables of {values.backbone} would keep random "
            "values. To write the file anyway: --allow_missing"
        )
        return 1
    with cli.writing({"output": values.output}):
        write_weights(network, values.output)
    print(f"weights written: {values.output}; train with --backbone_weights={values.output}")
    return 0


def _import_tflite(values: flags.FlagValues) -> int:
    cli.require(values, "model_dir", "statistics_images")
    network = read_tflite_network(values.checkpoint, photographs(values.statistics_images))
    print(network.report)
    with cli.writing({"model_dir": values.model_dir}):
        run = write_run(
            values.model_dir,
            network.experiment,
            network.model,
            network.label_set,
            source=network.source,
        )
    print(f"run written: {run.path}; train from it with --init_from={run.path}")
    return 0


if __name__ == "__main__":
    cli.run(main, define_flags)
