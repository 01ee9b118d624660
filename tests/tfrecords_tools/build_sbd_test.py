"""trainaug out of VOC and SBD: which images, whose labels, and .mat files of every kind."""

import io
import shutil
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from kseg.data import records
from kseg.data.datasets import VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_sbd, build_voc, check_records
from tfrecords_tools.decode import BadInput

LISTS = {"train": ["t0", "t1", "t2"], "val": ["v0", "v1"]}
SBD = {"train": ["s0", "t1", "v0"], "val": ["s1", "s2"]}


def write_mat(path, ids, name="GTcls", field="Segmentation"):
    """Writes a file as SBD's are: a structure with the ids and two members that are not read."""
    savemat = pytest.importorskip("scipy.io", reason="needs the extra sbd").savemat
    path.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[np.zeros((2, 2))] for _ in range(20)]
    content = {field: ids, "Boundaries": boundaries, "CategoriesPresent": np.uint8([[15]])}
    savemat(path, {name: content}, do_compression=True)
    return path


@pytest.fixture
def raw(tmp_path):
    root = folders.voc(tmp_path / "raw", LISTS)
    for number, name in enumerate(["s0", "s1", "s2", *LISTS["train"], *LISTS["val"]]):
        folders.mask(root / build_sbd.AUG_LABELS / f"{name}.png", 1 + number)
    for name in ("s0", "s1", "s2"):
        folders.image(root / "JPEGImages" / f"{name}.jpg")
    return root


@pytest.fixture
def sbd(raw, tmp_path):
    root = tmp_path / "sbd"
    for split, names in SBD.items():
        for name in names:
            with Image.open(raw / build_sbd.AUG_LABELS / f"{name}.png") as mask:
                write_mat(root / "cls" / f"{name}.mat", np.asarray(mask))
        (root / f"{split}.txt").write_text("\n".join(names))
    # One image that VOC's folder lacks.
    (root / "img").mkdir()
    shutil.move(raw / "JPEGImages" / "s2.jpg", root / "img" / "s2.jpg")
    return root


def test_trainaug_is_voc_train_and_sbd_without_voc_val(raw, sbd, tmp_path, capsys):
    manifests = build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd, splits=["trainaug", "val"])
    assert [(one.split, one.num_examples) for one in manifests] == [("trainaug", 6), ("val", 2)]
    labels = shards.labels(tmp_path / "out", "trainaug")
    assert list(labels) == ["s0", "s1", "s2", "t0", "t1", "t2"]
    for name, ids in labels.items():
        folder = build_sbd.AUG_LABELS if name.startswith("s") else build_voc.LABELS
        with Image.open(raw / folder / f"{name}.png") as mask:
            np.testing.assert_array_equal(ids, mask)
    assert [one.problems for one in check_records.check(tmp_path / "out")] == [[], []]
    printed = capsys.readouterr().out
    assert "trainaug: 6 images, 3 of VOC train and 3 of SBD; a part of the data sets" in printed


def test_the_pngs_give_the_labels_that_the_mat_files_give(raw, sbd, tmp_path):
    build_sbd.build(raw, tmp_path / "mat", sbd_dir=sbd)
    shutil.copy(sbd / "img" / "s2.jpg", raw / "JPEGImages")
    build_sbd.build(raw, tmp_path / "png")
    mats, pngs = (shards.labels(tmp_path / name, "trainaug") for name in ("mat", "png"))
    assert list(mats) == list(pngs)
    for name, ids in mats.items():
        np.testing.assert_array_equal(ids, pngs[name])


def test_the_official_lists_give_the_official_number(real_data, capsys):
    train, val, official = (
        (real_data / "voc_lists" / f"{name}.txt").read_text().split()
        for name in ("train", "val", "trainaug")
    )
    # SBD's own lists are not at hand: all of trainaug that VOC does not give, and enough of VOC.
    others = sorted({*official} - {*train})
    sbd = others + (val + train)[: build_sbd.SBD - len(others)]
    problems = []
    ids = build_sbd.trainaug(train, val, sbd, build_sbd.SBD, problems)
    assert (ids, len(ids), problems) == (sorted(official), 10582, [])
    assert capsys.readouterr().out == "trainaug: 10582 images, 1464 of VOC train and 9118 of SBD\n"
    wrong = [f"x{name}" if k == 5 else name for k, name in enumerate(reversed(sbd))]
    build_sbd.trainaug(train, val, wrong, build_sbd.SBD, problems)
    assert ["must hold 10582 images, here it holds 10583" in one for one in problems] == [True]


def test_real_masks_come_through_mat_files_unchanged(real_data, tmp_path):
    voc = real_data / "VOCdevkit" / "VOC2012"
    names = (voc / "ImageSets/Segmentation/trainaug.txt").read_text().split()
    own = set((voc / "ImageSets/Segmentation/train.txt").read_text().split())
    extra = [name for name in names if name not in own]
    for name in extra:
        with Image.open(voc / build_sbd.AUG_LABELS / f"{name}.png") as mask:
            write_mat(tmp_path / "sbd" / "cls" / f"{name}.mat", np.asarray(mask))
    (tmp_path / "sbd" / "img").mkdir()
    (tmp_path / "sbd" / "train.txt").write_text("\n".join(extra))
    (tmp_path / "sbd" / "val.txt").write_text("")
    (mat,) = build_sbd.build(voc, tmp_path / "mat", sbd_dir=tmp_path / "sbd", workers=2)
    (png,) = build_sbd.build(voc, tmp_path / "png", workers=2)
    assert mat.num_examples == png.num_examples == len(names) == 79
    assert mat.shards == png.shards
    assert mat.pixels_ignored > 0  # Of the 40 masks of VOC.


def test_a_mat_file_is_refused_by_name_and_reason(raw, tmp_path):
    ids = np.zeros((9, 12), np.uint8)
    whole = write_mat(tmp_path / "good.mat", ids).read_bytes()
    np.testing.assert_array_equal(build_sbd.read_label(tmp_path / "good.mat", VOC), ids)
    write_mat(tmp_path / "other.mat", ids, name="GTinst")
    write_mat(tmp_path / "field.mat", ids, field="Boundary")
    write_mat(tmp_path / "float.mat", ids.astype(float))
    (tmp_path / "text.mat").write_text("<html>404</html>")
    (tmp_path / "cut.mat").write_bytes(whole[:-9])
    (tmp_path / "empty.mat").write_bytes(b"")
    reasons = {
        "other": "holds no GTcls.Segmentation",
        "field": "holds no GTcls.Segmentation",
        "float": "must be a uint8 matrix",
        "text": "is not a MATLAB 5 file",
        "cut": "holds no GTcls.Segmentation|is truncated",
        "empty": "mask is an empty file",
        "gone": "mask not found",
    }
    for name, reason in reasons.items():
        with pytest.raises(BadInput, match=rf"{name}\.mat: .*({reason})"):
            build_sbd.read_label(tmp_path / f"{name}.mat", VOC)


def test_a_mat_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = write_mat(tmp_path / "bomb.mat", np.zeros((9, 12), np.uint8))
    packer, packed = zlib.compressobj(), io.BytesIO()
    for _ in range(100):
        packed.write(packer.compress(bytes(10**6)))
    packed.write(packer.flush())
    element = (15).to_bytes(4, "little") + len(packed.getvalue()).to_bytes(4, "little")
    path.write_bytes(path.read_bytes() + element + packed.getvalue())
    assert path.stat().st_size < 200_000
    with pytest.raises(BadInput, match="decompression bomb"):
        build_sbd.read_label(path, VOC)


def test_what_is_missing_is_named(raw, sbd, tmp_path, monkeypatch):
    (sbd / "cls" / "s1.mat").unlink()
    (sbd / "img" / "s2.jpg").unlink()
    with pytest.raises(UserError, match="2 problem") as caught:
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)
    assert "s1.mat: mask not found" in str(caught.value)
    assert "img/s2.jpg: image not found" in str(caught.value)
    (sbd / "val.txt").unlink()
    with pytest.raises(UserError, match=r"`sbd_dir` must be .* Not found: .*val\.txt"):
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)
    shutil.rmtree(raw / build_sbd.AUG_LABELS)
    with pytest.raises(UserError, match="trainaug needs --sbd_dir.* Not found: .*ClassAug"):
        build_sbd.build(raw, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match='`--sbd_dir` needs the extra "sbd"'):
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)


def test_an_image_of_val_in_trainaug_is_left_out_and_paths_in_lists_are_refused(raw, sbd, tmp_path):
    with open(sbd / "train.txt", "a") as file:
        file.write("\nv1\n/etc/passwd\n../t0\n")
    with pytest.raises(UserError, match="2 problem") as caught:
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)
    assert "train.txt, line 5: not the id of an image: '/etc/passwd'" in str(caught.value)
    (manifest,) = build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd, on_error="skip")
    assert manifest.num_examples == 6


def test_the_program_converts_what_its_flags_name(raw, sbd, tmp_path, capsys):
    values = shards.flag_values(
        build_sbd.define_flags,
        *(f"--raw_dir={raw}", f"--sbd_dir={sbd}", f"--output_dir={tmp_path / 'out'}"),
        "--splits=trainaug,train,val",
    )
    build_sbd.main(values)
    assert records.finished_splits(tmp_path / "out") == ["train", "trainaug", "val"]
    assert f"written to {tmp_path / 'out'}" in capsys.readouterr().out
