"""Turns an official checkpoint of DeepLab into a run, or into the weight file of a backbone.

    python -m kseg.import_checkpoint --checkpoint=deeplabv3_pascal_trainval \\
        --model_dir=runs/official

writes the whole network as the folder of a run, which all programs take: `kseg.predict`,
`kseg.evaluate`, `kseg.export`, and `kseg.train --init_from=runs/official`. What the network is
(backbone, ASPP, decoder, separable convolutions, number of classes) is found out from the
variables. `--output_stride`, `--multi_grid` and `--dilation_rates` are not written in a checkpoint;
their defaults are the official ones. `--checkpoint` is

    a folder      as the official tar files unpack; no file `checkpoint` is needed
    model.ckpt    the prefix of a checkpoint
    x.pb          a frozen graph whose constants have the names of the variables

Networks on Xception, MobileNetV2 and the "beta" ResNets can be imported. At image sizes k * 16 + 1
the logits are those of the official network. An image of another size gets the logits that the
official network has for that image, padded below and on the right with grey (127.5) to the next
such size: the official programs pad to one size, such as 513x513, and `--eval_size=513` does here.
The image pooling averages the whole map, as the official one does unless its crop size was changed
(`--image_pooling_crop_size` there).

The classes are those of the data set with the number of classes of the checkpoint: 21 is PASCAL
VOC, 19 Cityscapes, 151 ADE20K. The latter becomes a network with the 150 classes of kseg's ADE20K:
the official class 0, "other", was ignored in training, and its output is left out. `--classes`
names another data set or a file.

    python -m kseg.import_checkpoint --checkpoint=deeplabv3_mnv2_pascal_quant.tflite \\
        --model_dir=runs/official --statistics_images=VOC2012/JPEGImages

writes an official quantised DeepLabv3 on MobileNetV2. Its batch normalisations, which such a file
does not have, get statistics that are measured on the photographs of `--statistics_images`, so that
training can start from the run (`kseg.train --init_from`). At least 16 are needed, of the kind that
the network was trained on; of more than 64, that many at even distances are read.

    python -m kseg.import_checkpoint --checkpoint=deeplabv3/model.ckpt --backbone=xception_65 \\
        --output=x65.weights.h5

writes a weight file of the backbone alone. Afterwards
`python -m kseg.train --backbone_weights=x65.weights.h5 ...` starts from these weights.

The program reports what happened to every variable. If a variable of the network or the backbone is
missing in the checkpoint or has another shape, or if the checkpoint has kernels that the network
does not have, nothing is written and the status is 1. For a backbone, `--allow_missing` writes the
file nevertheless. The backbones:

    xception_41, xception_65, xception_71
                  All weights; the backbone then computes what the official network computes, at
                  any image size.
    mobilenet_v2, mobilenet_v2_050, mobilenet_v2_dm05
                  All weights; equal to the official network at image sizes k * 16 + 1. At other
                  sizes slim shifts its windows by a pixel, which the backbones of kseg never do.
                  With depth multiplier 0.5, slim's ImageNet checkpoints are mobilenet_v2_050, and
                  those of DeepLab mobilenet_v2_dm05.
    resnet50_beta, resnet101_beta
                  All weights of DeepLab's ResNets; equal at image sizes k * 16 + 1 as well. slim
                  has the stride in the last unit of a block, kseg in the first unit of the next
                  block.
    resnet50, resnet101, resnet152
                  All weights of slim's ResNets; otherwise like the "beta" ResNets. The kernel of
                  the first convolution is reordered from RGB to BGR. The channel means that DeepLab
                  subtracts differ from those of kseg by less than one of 255 levels.

    python -m kseg.import_checkpoint --checkpoint=model.safetensors --backbone=xception_65 \\
        --output=x65.weights.h5

reads the weights of a network of timm instead, `xception41`, `xception65` or `xception71`: a file
of safetensors, or one of `torch.save` (.pth, .pt, .bin; needs the extra `torch`). The backbone then
computes what timm's network computes, at any image size. The ResNets of torchvision and timm have
the stride in other convolutions than those of kseg, so they cannot be imported.
"""

from absl import flags

from kseg import cli
from kseg.data.datasets import LABEL_SETS
from kseg.errors import UserError
from kseg.formats.imports.backbone_weights import import_backbone, write_weights
from kseg.formats.imports.imported_network import ImportedNetwork
from kseg.formats.imports.networks import read_network
from kseg.formats.imports.norm_statistics import photographs
from kseg.formats.imports.official_names import SCOPES
from kseg.formats.imports.tflite_network import read_tflite_network
from kseg.formats.imports.torch_files import is_torch_file
from kseg.runs.imported import new_run, write_run

NETWORK = "Whole networks, with --model_dir"
BACKBONE = "Backbones, with --output"
_OPTIONS = ("output_stride", "multi_grid", "dilation_rates")
_OF_CHECKPOINT = (*_OPTIONS, "moving_averages")
_OF_NETWORK = ("classes", *_OPTIONS, "statistics_images")
_OF_BACKBONE = ("backbone", "allow_missing")


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "checkpoint",
        "",
        "Prefix of the checkpoint (model.ckpt for the file model.ckpt.index), its folder, or a "
        "frozen graph (.pb), or a quantised network (.tflite); for a backbone also a weight file "
        "of timm (.safetensors, .pth).",
    )
    flags.DEFINE_string("model_dir", "", "Folder of the run to write; must be new or empty.")
    flags.DEFINE_string(
        "classes",
        "",
        f"One of {', '.join(LABEL_SETS)}, a classes file as the converters take it, or the "
        "labels.json of a run or an export. Empty: found from the number of classes.",
    )
    flags.DEFINE_integer(
        "output_stride", 16, "8, 16 or 32: the stride of the features that ASPP sees."
    )
    flags.DEFINE_list(
        "multi_grid", None, "Three factors of the dilation of the last stage. Empty: all are 1."
    )
    flags.DEFINE_list(
        "dilation_rates",
        None,
        "Dilation rates of ASPP. Empty: 6,12,18 at output stride 16, 12,24,36 at 8, 3,6,9 at 32.",
    )
    flags.DEFINE_bool(
        "moving_averages",
        True,
        "Take the moving averages of weights where the checkpoint has them, as slim's notebook "
        "mobilenet_example.ipynb does.",
    )
    flags.DEFINE_string(
        "statistics_images",
        "",
        ".tflite: photographs on which the statistics of the batch normalisations are measured: a "
        "folder, a glob, or a .txt file with one path on each line.",
    )
    cli.set_group(NETWORK, ("model_dir", *_OF_NETWORK))
    flags.DEFINE_string("output", "", "File to write; its name must end in .weights.h5.")
    flags.DEFINE_string("backbone", "", f"One of {', '.join(sorted(SCOPES))}.")
    flags.DEFINE_bool(
        "allow_missing",
        False,
        "Write the file even if variables are missing or have another shape; they keep random "
        "values.",
    )
    cli.set_group(BACKBONE, ("output", *_OF_BACKBONE))


def main(values: flags.FlagValues) -> int:
    """Imports one checkpoint; returns 1 and writes nothing if the network would be incomplete."""
    cli.require(values, "checkpoint")
    if bool(values.model_dir) == bool(values.output):
        received = "both" if values.output else "neither"
        raise UserError(
            "Either `--model_dir` (the whole network as a run) or `--output` (the weight file of "
            f"the backbone) must be given. Received: {received}"
        )
    others, wanted = (
        (_OF_BACKBONE, "output") if values.model_dir else (_OF_NETWORK, "model_dir")
    )  # fmt: skip
    for name in others:
        if values[name].present:
            raise UserError(f"`--{name}` must be given with `--{wanted}` only")
    return _import_network(values) if values.model_dir else _import_backbone(values)


def _import_network(values: flags.FlagValues) -> int:
    new_run(values.model_dir)
    network = _read_network(values)
    print(network.report)
    if not network.complete:
        print(
            "Nothing was written: the network and the checkpoint do not fit, see the last groups "
            "above"
        )
        return 1
    with cli.writing({"model_dir": values.model_dir}):
        run = write_run(
            values.model_dir,
            network.experiment,
            network.model,
            network.label_set,
            source=network.source,
        )
    names = ", ".join(network.label_set.names[:8])
    print(
        f"run written: {run.path}, with {network.label_set.num_classes} classes ({names}, ...); "
        f"python -m kseg.predict --model_dir={run.path} --images=... uses it"
    )
    return 0


def _read_network(values: flags.FlagValues) -> ImportedNetwork:
    if values.checkpoint.endswith(".tflite"):
        for name in _OF_CHECKPOINT:
            if values[name].present:
                raise UserError(f"`--{name}` must not be given for a .tflite file")
        cli.require(values, "statistics_images")
        images = photographs(values.statistics_images)
        return read_tflite_network(values.checkpoint, images, classes=values.classes)
    if values.statistics_images:
        raise UserError("`--statistics_images` must be given for a .tflite file only")
    return read_network(
        values.checkpoint,
        classes=values.classes,
        output_stride=values.output_stride,
        multi_grid=_integers(values, "multi_grid"),
        dilation_rates=_integers(values, "dilation_rates"),
        moving_averages=values.moving_averages,
    )


def _integers(values: flags.FlagValues, name: str) -> tuple[int, ...] | None:
    return cli.numbers(values, name, int) if values[name].value else None


def _import_backbone(values: flags.FlagValues) -> int:
    cli.require(values, "backbone")
    if not values.output.endswith(".weights.h5"):
        raise UserError(f"`--output` must end in .weights.h5. Received: {values.output}")
    if values["moving_averages"].present and is_torch_file(values.checkpoint):
        raise UserError("`--moving_averages` must not be given for a weight file of torch")
    network, report = import_backbone(
        values.checkpoint, values.backbone, moving_averages=values.moving_averages
    )
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


if __name__ == "__main__":
    cli.run(main, define_flags)
