"""Converts trainaug: PASCAL VOC 2012 with the Semantic Boundaries Dataset (SBD) beside it.

    VOC2012/                               as for build_voc
    benchmark_RELEASE/dataset/train.txt    SBD as it is published: one id a line
    benchmark_RELEASE/dataset/val.txt
    benchmark_RELEASE/dataset/img/<id>.jpg
    benchmark_RELEASE/dataset/cls/<id>.mat class ids in GTcls.Segmentation

    python -m tfrecords_tools.build_sbd --raw_dir=VOC2012 --sbd_dir=benchmark_RELEASE/dataset \\
        --output_dir=records --splits=trainaug,val

Reading .mat files needs SciPy: `pip install -e ".[sbd]"`. Without --sbd_dir the labels are the PNGs
of `VOC2012/SegmentationClassAug`, SBD's masks as others have converted them.

trainaug is (VOC train + SBD train + SBD val) - VOC val: 10,582 images, on which most published
figures were trained. Images of VOC's own train list keep VOC's masks, which have ignored borders;
SBD's have none. Any other split is a list of VOC with VOC's masks.
"""

import importlib.util
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from kseg import cli
from kseg.data.datasets import VOC, LabelSet
from kseg.data.records import Manifest
from kseg.errors import UserError, missing_extra
from tfrecords_tools import build_voc, decode, inputs, layouts, writer
from tfrecords_tools.decode import BadInput
from tfrecords_tools.inputs import Sample

TRAINAUG = "trainaug"
AUG_LABELS = "SegmentationClassAug"
# Images in the whole data sets: VOC's train and val list, SBD's two lists together, and trainaug.
VOC_TRAIN, VOC_VAL, SBD, TRAINAUG_SIZE = 1464, 1449, 11355, 10582

# A file in MATLAB's format 5: the length of its head, which ends with the mark of little-endian
# files, and the type of a compressed element.
_MAT_HEAD, _MAT_MARK, _MAT_COMPRESSED = 128, b"IM", 15


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    sbd_dir: str | Path | None = None,
    splits: Sequence[str] = (TRAINAUG,),
    **conversion,
) -> list[Manifest]:
    """Converts trainaug, and lists of VOC beside it, all or none.

    Args:
        raw_dir: folder in VOC's layout.
        output_dir: folder of the records.
        sbd_dir: folder that holds `cls`, `img`, `train.txt` and `val.txt` of SBD. Defaults to
            none: the labels are the PNGs of `SegmentationClassAug` in `raw_dir`.
        splits: `trainaug` and names of VOC's lists.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder or list is missing, SciPy is, the whole data sets do not give 10,582
            images, or the inputs have problems (all are named).
    """
    raw_dir = Path(raw_dir)
    sbd_dir = None if sbd_dir is None else Path(sbd_dir)
    build_voc.require_layout(raw_dir, build_voc.LABELS)
    layouts.check_splits(splits)
    problems: list[str] = []
    samples = {}
    for split in splits:
        if split != TRAINAUG:
            samples[split] = [
                _voc_sample(raw_dir, name) for name in build_voc.read_list(raw_dir, split, problems)
            ]
        elif sbd_dir is None:
            samples[split] = _from_pngs(raw_dir, problems)
        else:
            samples[split] = _from_sbd(raw_dir, sbd_dir, problems)
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=VOC,
        read_label=read_label,
        problems=problems,
        may_share=build_voc.MAY_SHARE,
        tool="tfrecords_tools.build_sbd",
        arguments={
            "raw_dir": str(raw_dir),
            "sbd_dir": None if sbd_dir is None else str(sbd_dir),
            "splits": list(splits),
        },
        **conversion,
    )


def trainaug(
    voc_train: Sequence[str],
    voc_val: Sequence[str],
    others: Sequence[str],
    whole: int,
    problems: list[str],
) -> list[str]:
    """The ids of (VOC train + others) - VOC val, sorted; prints how many, and of what.

    Args:
        voc_train: VOC's train list.
        voc_val: VOC's val list.
        others: the ids for which there are masks of SBD; they may be in VOC's lists as well.
        whole: how many `others` the whole data set gives.
        problems: takes that the whole data sets do not give 10,582.
    """
    own = {*voc_train} - {*voc_val}
    ids = sorted(own | {*others} - {*voc_val})
    sizes = len({*voc_train}), len({*voc_val}), len({*others})
    is_whole = sizes == (VOC_TRAIN, VOC_VAL, whole)
    if is_whole and len(ids) != TRAINAUG_SIZE:
        problems.append(
            f"{TRAINAUG} of the whole data sets must hold {TRAINAUG_SIZE} images, here it holds "
            f"{len(ids)}; is one of the lists another's?"
        )
    print(
        f"{TRAINAUG}: {len(ids)} images, {len(own)} of VOC train and {len(ids) - len(own)} of SBD"
        + ("" if is_whole else f"; a part of the data sets, whose whole gives {TRAINAUG_SIZE}")
    )
    return ids


def read_label(path: Path, label_set: LabelSet) -> np.ndarray:
    """Ids of a mask of VOC, as a PNG, or of SBD, as a MATLAB file."""
    if path.suffix != ".mat":
        return inputs.read_index_mask(path, label_set)
    contents = decode.read(path, "mask")
    _refuse_bomb(path, contents)
    import scipy.io

    try:
        # A structure is an array of 1x1 records.
        ids = scipy.io.loadmat(io.BytesIO(contents), variable_names=["GTcls"])["GTcls"]
        ids = ids["Segmentation"][0, 0]
    except Exception as error:
        # SciPy raises whatever a damaged file makes it meet.
        reason = type(error).__name__ if isinstance(error, KeyError) else error
        raise BadInput(path, f"holds no GTcls.Segmentation ({reason})") from None
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or ids.dtype != np.uint8:
        raise BadInput(path, "GTcls.Segmentation must be a uint8 matrix of class ids")
    return ids


def _refuse_bomb(path: Path, contents: bytes) -> None:
    """Unpacks the elements of a MATLAB file up to a limit, before SciPy unpacks all of them."""
    if contents[_MAT_HEAD - len(_MAT_MARK) : _MAT_HEAD] != _MAT_MARK:
        raise BadInput(path, "is not a MATLAB 5 file")
    position = _MAT_HEAD
    while position + 8 <= len(contents):
        kind, size = struct.unpack_from("<II", contents, position)
        position += 8
        if kind == _MAT_COMPRESSED:
            try:
                element = zlib.decompressobj().decompress(
                    contents[position : position + size], Image.MAX_IMAGE_PIXELS + 1
                )
            except zlib.error as error:
                raise BadInput(path, f"is truncated or damaged ({error})") from None
            if len(element) > Image.MAX_IMAGE_PIXELS:
                raise BadInput(
                    path,
                    f"more than {Image.MAX_IMAGE_PIXELS} bytes; refused as a decompression bomb",
                )
        position += size


def _voc_sample(raw_dir: Path, name: str) -> Sample:
    label = raw_dir / build_voc.LABELS / f"{name}.png"
    return Sample(name, build_voc.image_path(raw_dir, name), label)


def _from_pngs(raw_dir: Path, problems: list[str]) -> list[Sample]:
    labels = raw_dir / AUG_LABELS
    if not labels.is_dir():
        raise UserError(
            f"trainaug needs --sbd_dir, the folder with cls and img of SBD, or {AUG_LABELS} in "
            f"`raw_dir`. Not found: {labels}"
        )
    masks = layouts.files_by_id(labels, (".png",), problems)
    train, val = (build_voc.read_list(raw_dir, split, problems) for split in ("train", "val"))
    own = set(train)
    return [
        _voc_sample(raw_dir, name)
        if name in own
        else Sample(name, build_voc.image_path(raw_dir, name), masks[name])
        # The folder holds VOC's val masks as well as those of trainaug.
        for name in trainaug(train, val, [*masks], TRAINAUG_SIZE + VOC_VAL, problems)
    ]


def _from_sbd(raw_dir: Path, sbd_dir: Path, problems: list[str]) -> list[Sample]:
    if importlib.util.find_spec("scipy") is None:
        raise missing_extra("sbd", "`--sbd_dir`")
    for name in ("cls", "img", "train.txt", "val.txt"):
        if not (sbd_dir / name).exists():
            raise UserError(
                "`sbd_dir` must be the folder of SBD with cls, img, train.txt and val.txt. Not "
                f"found: {sbd_dir / name}"
            )
    train, val = (build_voc.read_list(raw_dir, split, problems) for split in ("train", "val"))
    sbd = [
        name
        for split in ("train", "val")
        for name in inputs.read_names(sbd_dir / f"{split}.txt", problems)
    ]
    own = set(train)
    samples = []
    for name in trainaug(train, val, sbd, SBD, problems):
        if name in own:
            samples.append(_voc_sample(raw_dir, name))
            continue
        # The same photographs: VOC's copy where there is one, so that all come from one place.
        image = build_voc.image_path(raw_dir, name)
        image = image if image.is_file() else sbd_dir / "img" / f"{name}.jpg"
        samples.append(Sample(name, image, sbd_dir / "cls" / f"{name}.mat"))
    return samples


def define_flags() -> None:
    layouts.define_flags("Folder in VOC's layout (VOCdevkit/VOC2012).", (TRAINAUG,))
    flags.DEFINE_string(
        "sbd_dir",
        None,
        "Folder with cls, img, train.txt and val.txt of SBD (benchmark_RELEASE/dataset); default: "
        f"the masks are the PNGs of {AUG_LABELS} in --raw_dir.",
    )


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "sbd_dir")


if __name__ == "__main__":
    cli.run(main, define_flags)
