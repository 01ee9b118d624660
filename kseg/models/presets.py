"""Presets: trained networks of other projects that kseg can load by name.

Only facts are here: what a network is, and which file holds its weights. `kseg.load(name)` finds
the file, see `kseg.formats.presets`.
"""

import dataclasses

_MODEL_ZOO = "https://github.com/tensorflow/models/blob/master/research/deeplab/g3doc/model_zoo.md"
_QUANTIZE = "https://github.com/tensorflow/models/blob/master/research/deeplab/g3doc/quantize.md"
_CORAL = "https://github.com/google-coral/test_data"
_DOWNLOADS = "http://download.tensorflow.org/models/"
_TENSORFLOW = "Apache-2.0 for the repository; the page states none for the weights"

_MOBILENET = {"backbone": "mobilenet_v2", "context": "none", "decoder": False}
_XCEPTION = {
    "backbone": "xception_65",
    "context": "aspp",
    "separable": True,
    "decoder": True,
    "decoder_separable": True,
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """A trained network and the file that holds its weights.

    Attributes:
        name: The name for `kseg.load` and `--init_from`.
        description: On what it was trained, and the mIoU that its source states.
        classes: The data set whose classes it has: "voc", "cityscapes" or "ade20k".
        options: The options of `kseg.models.deeplab_v3_plus` that decide its variables.
        source: Address of the page that describes it.
        licence: Licence, as far as the source states one.
        file: Name of the file that the source offers.
        url: Address of the file.
        sha256: Hash of the file; None if we have not seen the file, which is then not checked.
    """

    name: str
    description: str
    classes: str
    options: dict[str, object]
    source: str
    licence: str
    file: str
    url: str
    sha256: str | None = None

    @property
    def network(self) -> str:
        """The network in words."""
        base = "DeepLabv3+" if self.options["decoder"] else "DeepLabv3"
        aspp = "" if self.options["context"] == "aspp" else " without ASPP"
        return f"{base}{aspp} on {self.options['backbone']}"


def _official(
    name: str,
    file: str,
    description: str,
    options: dict[str, object],
    classes: str = "voc",
    source: str = _MODEL_ZOO,
) -> Preset:
    """Returns a preset of the official DeepLab code."""
    return Preset(name, description, classes, options, source, _TENSORFLOW, file, _DOWNLOADS + file)


PRESETS = {
    preset.name: preset
    for preset in (
        _official(
            "deeplab_v3_plus_xception_65_voc_trainaug",
            "deeplabv3_pascal_train_aug_2018_01_04.tar.gz",
            "COCO, then VOC 2012 train_aug; 82.20 on val",
            _XCEPTION,
        ),
        _official(
            "deeplab_v3_plus_xception_65_voc_trainval",
            "deeplabv3_pascal_trainval_2018_01_04.tar.gz",
            "COCO, then VOC 2012 train_aug and trainval; 87.80 on test (six scales, flip)",
            _XCEPTION,
        ),
        _official(
            "deeplab_v3_plus_xception_65_cityscapes",
            "deeplabv3_cityscapes_train_2018_02_06.tar.gz",
            "ImageNet, then Cityscapes train_fine; 78.79 on val",
            _XCEPTION,
            "cityscapes",
        ),
        _official(
            "deeplab_v3_plus_xception_65_ade20k",
            "deeplabv3_xception_ade20k_train_2018_05_29.tar.gz",
            "ImageNet, then ADE20K; 45.65 on val (six scales, flip)",
            _XCEPTION,
            "ade20k",
        ),
        _official(
            "deeplab_v3_mobilenet_v2_voc_trainaug",
            "deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz",
            "COCO, then VOC 2012 train_aug; 75.32 on val",
            _MOBILENET,
        ),
        _official(
            "deeplab_v3_mobilenet_v2_voc_trainval",
            "deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz",
            "COCO, then VOC 2012 train_aug and trainval; 80.25 on test (six scales, flip)",
            _MOBILENET,
        ),
        _official(
            "deeplab_v3_mobilenet_v2_dm05_voc_trainaug",
            "deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz",
            "COCO, then VOC 2012 train_aug; 70.19 on val",
            _MOBILENET | {"backbone": "mobilenet_v2_dm05"},
            source=_QUANTIZE,
        ),
        _official(
            "deeplab_v3_mobilenet_v2_cityscapes",
            "deeplabv3_mnv2_cityscapes_train_2018_02_05.tar.gz",
            "COCO, then Cityscapes train_fine; 70.71 on val",
            _MOBILENET,
            "cityscapes",
        ),
        Preset(
            "deeplab_v3_mobilenet_v2_voc_8bit",
            "VOC 2012, quantised to 8 bits; no mIoU stated",
            "voc",
            _MOBILENET,
            _CORAL,
            "not stated",
            "deeplabv3_mnv2_pascal_quant.tflite",
            "https://raw.githubusercontent.com/google-coral/test_data/master/"
            "deeplabv3_mnv2_pascal_quant.tflite",
            "350af47fd346ea6d74b58833a351f583ba860e9806ec5bd292ff8d8f1f249398",
        ),
    )
}


def list_presets() -> list[str]:
    """Returns the names of the presets, sorted."""
    return sorted(PRESETS)


def markdown_table() -> str:
    """Returns the table of docs/models.md."""
    rows = [("preset", "network", "trained on; mIoU that the source states, in %", "file")]
    rows.append(("---",) * 4)
    rows += [
        (f"`{name}`", PRESETS[name].network, PRESETS[name].description, f"`{PRESETS[name].file}`")
        for name in list_presets()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace(" --- ", "---")
