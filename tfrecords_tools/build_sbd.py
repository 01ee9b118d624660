"""Converts trainaug: PASCAL VOC 2012 together with the Semantic Boundaries Dataset (SBD).

    VOC2012/                               as for build_voc
    benchmark_RELEASE/dataset/train.txt    SBD as it is published: one id per line
    benchmark_RELEASE/dataset/val.txt
    benchmark_RELEASE/dataset/img/<id>.jpg
    benchmark_RELEASE/dataset/cls/<id>.mat class ids in GTcls.Segmentation

    python -m tfrecords_tools.build_sbd --raw_dir=VOC2012 --sbd_dir=benchmark_RELEASE/dataset \\
        --output_dir=records --splits=trainaug,val

Reading .mat files needs SciPy: `pip install -e ".[sbd]"`. Without --sbd_dir, the labels are the
PNGs in `VOC2012/SegmentationClassAug`, which are SBD's masks as others have converted them.

trainaug is (VOC train + SBD train + SBD val) - VOC val: 10,582 images, on which most published
results were trained. Images of VOC's train list keep VOC's masks, which have ignored borders; SBD's
have none. Every other split is a list of VOC with VOC's masks.
"""

import importlib.util
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from kseg import cli
from kseg.data import checked_images, masks
from kseg.data.checked_images import BadInput
from kseg.data.datasets import VOC, LabelSet
from kseg.data.manifests import Manifest
from kseg.errors import UserError, missing_extra
from tfrecords_tools import layouts, lists, voc_layout, writer
from tfrecords_tools.inputs import Sample

TRAINAUG = "trainaug"
AUG_LABELS = "SegmentationClassAug"
# Images in the complete data sets: VOC's train and val, SBD's two lists together, and trainaug.
VOC_TRAIN, VOC_VAL, SBD, TRAINAUG_SIZE = 1464, 1449, 11355, 10582

# MATLAB's format 5: the length of the header, its last bytes in a little-endian file, and the type
# of a compressed element.
_MAT_HEADER, _MAT_MARK, _MAT_COMPRESSED = 128, b"IM", 15


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    sbd_dir: str | Path | None = None,
    splits: Sequence[str] = (TRAINAUG,),
    masks_are: str | None = None,
    **conversion: Any,
) -> list[Manifest]:
    """Converts trainaug, and lists of VOC, all or none.

    Args:
        raw_dir: Folder in VOC's layout.
        output_dir: Folder of the records.
        sbd_dir: Folder with `cls`, `img`, `train.txt` and `val.txt` of SBD. Defaults to None: the
            labels are the PNGs of `SegmentationClassAug` in `raw_dir`.
        splits: `trainaug` and names of VOC's lists. Defaults to trainaug.
        masks_are: `"ids"`, whatever the palettes show. Defaults to None: ids, with palettes that
            agree.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If a folder, a list or SciPy is missing, the complete data sets do not give
            10,582 images, or the input has problems (all of them are named).
    """
    raw_dir = Path(raw_dir)
    voc_layout.require(raw_dir)
    layouts.check_splits(splits)
    problems: list[str] = []
    samples = {}
    for split in splits:
        if split != TRAINAUG:
            names = voc_layout.read_list(raw_dir, split, problems)
            samples[split] = voc_layout.samples(raw_dir, names, problems)
        elif sbd_dir is None:
            samples[split] = _samples_of_pngs(raw_dir, problems)
        else:
            samples[split] = _samples_of_sbd(raw_dir, Path(sbd_dir), problems)
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=VOC,
        read_label=lists.rule_of_ids(masks_are, palette=VOC, kind=SbdRule),
        problems=problems,
        may_share=voc_layout.MAY_SHARE,
        tool="tfrecords_tools.build_sbd",
        arguments={
            "raw_dir": raw_dir,
            "sbd_dir": sbd_dir,
            "splits": splits,
            "masks_are": masks_are,
        },
        **conversion,
    )


def trainaug(
    voc_train: Sequence[str],
    voc_val: Sequence[str],
    sbd: Sequence[str],
    complete: int,
    problems: list[str],
) -> list[str]:
    """Returns the ids of (VOC train + SBD) - VOC val, sorted, and prints their numbers.

    Args:
        voc_train: VOC's train list.
        voc_val: VOC's val list.
        sbd: The ids with masks of SBD. They may also be in VOC's lists.
        complete: The size of `sbd` in the complete data set.
        problems: Receives a message if the complete data sets do not give 10,582 images.
    """
    from_voc = {*voc_train} - {*voc_val}
    ids = sorted(from_voc | {*sbd} - {*voc_val})
    sizes = len({*voc_train}), len({*voc_val}), len({*sbd})
    is_complete = sizes == (VOC_TRAIN, VOC_VAL, complete)
    if is_complete and len(ids) != TRAINAUG_SIZE:
        problems.append(
            f"{TRAINAUG} of the complete data sets must have {TRAINAUG_SIZE} images, but it has "
            f"{len(ids)}. Is one of the lists from another data set?"
        )
    print(
        f"{TRAINAUG}: {len(ids)} images, {len(from_voc)} from VOC train and "
        f"{len(ids) - len(from_voc)} from SBD"
        + ("" if is_complete else f" (the complete data sets give {TRAINAUG_SIZE})")
    )
    return ids


class SbdRule(masks.MaskRule):
    """The rule for masks of VOC, which are PNG files, and of SBD, which are MATLAB files."""

    def __call__(self, path: Path, label_set: LabelSet) -> np.ndarray:
        """Returns the ids of a mask; see `MaskRule`."""
        return super().__call__(path, label_set) if path.suffix != ".mat" else read_mat(path)


def read_mat(path: Path) -> np.ndarray:
    """Returns the ids of a mask of SBD.

    Raises:
        BadInput: If the file cannot hold a mask.
    """
    contents = checked_images.read_bytes(path, "mask")
    if contents[_MAT_HEADER - len(_MAT_MARK) : _MAT_HEADER] != _MAT_MARK:
        raise BadInput(path, "is not a MATLAB 5 file")
    import scipy.io

    try:
        _check_unpacked_size(path, contents)
        # A structure is an array of 1x1 records.
        ids = scipy.io.loadmat(io.BytesIO(contents), variable_names=["GTcls"])["GTcls"]
        ids = ids["Segmentation"][0, 0]
    except BadInput:
        raise
    except Exception as error:
        # SciPy raises errors of many types for damaged files.
        reason = type(error).__name__ if isinstance(error, KeyError) else error
        raise BadInput(path, f"holds no GTcls.Segmentation ({reason})") from None
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or ids.dtype != np.uint8:
        raise BadInput(path, "GTcls.Segmentation must be a uint8 matrix of class ids")
    return ids


def _check_unpacked_size(path: Path, contents: bytes) -> None:
    """Rejects decompression bombs: SciPy unpacks an element whatever its size."""
    limit = Image.MAX_IMAGE_PIXELS
    position = _MAT_HEADER
    while position + 8 <= len(contents):
        kind, size = struct.unpack_from("<II", contents, position)
        position += 8
        packed = contents[position : position + size]
        position += size
        if kind != _MAT_COMPRESSED:
            continue
        if len(zlib.decompressobj().decompress(packed, limit + 1)) > limit:
            raise BadInput(path, f"has more than {limit} bytes; rejected as a decompression bomb")


def _samples_of_pngs(raw_dir: Path, problems: list[str]) -> list[Sample]:
    labels = raw_dir / AUG_LABELS
    if not labels.is_dir():
        raise UserError(
            f"trainaug needs `sbd_dir`, the folder with cls and img of SBD, or {AUG_LABELS} in "
            f"`raw_dir`. Not found: {labels}"
        )
    found = layouts.files_by_id(labels, (".png",), problems)
    train, val = (voc_layout.read_list(raw_dir, split, problems) for split in ("train", "val"))
    in_voc = set(train)
    # The complete folder has the masks of VOC val as well as those of trainaug.
    names = trainaug(train, val, [*found], TRAINAUG_SIZE + VOC_VAL, problems)
    samples = []
    for name in names:
        if name in in_voc:
            samples += voc_layout.samples(raw_dir, [name], problems)
        else:
            samples += voc_layout.samples(raw_dir, [name], problems, AUG_LABELS)
    return samples


def _samples_of_sbd(raw_dir: Path, sbd_dir: Path, problems: list[str]) -> list[Sample]:
    if importlib.util.find_spec("scipy") is None:
        raise missing_extra("sbd", "`--sbd_dir`")
    layouts.require_layout(sbd_dir, ("cls", "img", "train.txt", "val.txt"), "SBD", "sbd_dir")
    train, val = (voc_layout.read_list(raw_dir, split, problems) for split in ("train", "val"))
    sbd = [
        name
        for split in ("train", "val")
        for name in lists.read_names(sbd_dir / f"{split}.txt", problems)
    ]
    in_voc = set(train)
    samples = []
    for name in trainaug(train, val, sbd, SBD, problems):
        if name in in_voc:
            samples += voc_layout.samples(raw_dir, [name], problems)
            continue
        # Both have the same photographs. VOC's is preferred, so that most come from one source.
        try:
            image = voc_layout.image_path(raw_dir, name)
        except BadInput as problem:
            problems.append(str(problem))
            continue
        image = image if image.is_file() else sbd_dir / "img" / f"{name}.jpg"
        samples.append(Sample(name, image, sbd_dir / "cls" / f"{name}.mat"))
    return samples


def define_flags() -> None:
    layouts.define_flags("Folder in VOC's layout (VOCdevkit/VOC2012).", (TRAINAUG,))
    flags.DEFINE_string(
        "sbd_dir",
        None,
        "Folder with cls, img, train.txt and val.txt of SBD (benchmark_RELEASE/dataset). Default: "
        f"the masks are the PNGs in {AUG_LABELS} in --raw_dir.",
    )
    layouts.define_masks_are(takes_colours=False)


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "sbd_dir", "masks_are")


if __name__ == "__main__":
    cli.run(main, define_flags)
