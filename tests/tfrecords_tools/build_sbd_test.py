"""trainaug from VOC and SBD: its images, their labels, and .mat files of every kind."""

import io
import shutil
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from kseg.data import manifests
from kseg.data.checked_images import BadInput
from kseg.data.datasets import VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_sbd, check_records, voc_layout

LISTS = {"train": ["t0", "t1", "t2"], "val": ["v0", "v1"]}
SBD = {"train": ["s0", "t1", "v0"], "val": ["s1", "s2"]}


def write_mat(path, ids, name="GTcls", field="Segmentation"):
    """Writes a file like SBD's: a structure with the ids and two members that are not read."""
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
    # One image that is not in VOC's folder.
    (root / "img").mkdir()
    shutil.move(raw / "JPEGImages" / "s2.jpg", root / "img" / "s2.jpg")
    return root


def test_trainaug_is_voc_train_and_sbd_without_voc_val(raw, sbd, tmp_path, capsys):
    manifests = build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd, splits=["trainaug", "val"])
    assert [(m.split, m.num_examples) for m in manifests] == [("trainaug", 6), ("val", 2)]
    labels = shards.labels(tmp_path / "out", "trainaug")
    assert list(labels) == ["s0", "s1", "s2", "t0", "t1", "t2"]
    for name, ids in labels.items():
        folder = build_sbd.AUG_LABELS if name.startswith("s") else voc_layout.LABELS
        with Image.open(raw / folder / f"{name}.png") as mask:
            np.testing.assert_array_equal(ids, mask)
    assert [result.problems for result in check_records.check(tmp_path / "out")] == [[], []]
    printed = capsys.readouterr().out
    assert "trainaug: 6 images, 3 from VOC train and 3 from SBD" in printed


def test_pngs_and_mat_files_give_the_same_labels(raw, sbd, tmp_path):
    build_sbd.build(raw, tmp_path / "mat", sbd_dir=sbd)
    shutil.copy(sbd / "img" / "s2.jpg", raw / "JPEGImages")
    build_sbd.build(raw, tmp_path / "png")
    mats, pngs = (shards.labels(tmp_path / name, "trainaug") for name in ("mat", "png"))
    assert list(mats) == list(pngs)
    for name, ids in mats.items():
        np.testing.assert_array_equal(ids, pngs[name])


def test_official_lists_give_10582_images(real_data, capsys):
    train, val, official = (
        (real_data / "voc_lists" / f"{name}.txt").read_text().split()
        for name in ("train", "val", "trainaug")
    )
    # In place of SBD's lists: all of trainaug that is not from VOC, filled up with images of VOC.
    extra = sorted({*official} - {*train})
    sbd = extra + (val + train)[: build_sbd.SBD - len(extra)]
    problems = []
    ids = build_sbd.trainaug(train, val, sbd, build_sbd.SBD, problems)
    assert (ids, len(ids), problems) == (sorted(official), 10582, [])
    assert "10582 images, 1464 from VOC train and 9118 from SBD" in capsys.readouterr().out
    wrong = [f"x{name}" if k == 5 else name for k, name in enumerate(reversed(sbd))]
    build_sbd.trainaug(train, val, wrong, build_sbd.SBD, problems)
    folders.assert_each_in_one([("trainaug", "10582", "10583")], problems)


def test_real_masks_are_the_same_from_mat_files(real_data, tmp_path):
    voc = real_data / "VOCdevkit" / "VOC2012"
    names = (voc / "ImageSets/Segmentation/trainaug.txt").read_text().split()
    in_voc = set((voc / "ImageSets/Segmentation/train.txt").read_text().split())
    extra = [name for name in names if name not in in_voc]
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
    assert mat.pixels_ignored > 0  # In the 40 masks of VOC.


def test_bad_mat_file_is_named(tmp_path):
    ids = np.zeros((9, 12), np.uint8)
    whole = write_mat(tmp_path / "good.mat", ids).read_bytes()
    np.testing.assert_array_equal(build_sbd.SbdRule()(tmp_path / "good.mat", VOC), ids)
    write_mat(tmp_path / "other.mat", ids, name="GTinst")
    write_mat(tmp_path / "field.mat", ids, field="Boundary")
    write_mat(tmp_path / "float.mat", ids.astype(float))
    (tmp_path / "text.mat").write_text("<html>404</html>")
    (tmp_path / "cut.mat").write_bytes(whole[:-9])
    (tmp_path / "empty.mat").write_bytes(b"")
    for name in ("other", "field", "float", "text", "cut", "empty", "gone"):
        with pytest.raises(BadInput, match=rf"{name}\.mat: "):
            build_sbd.SbdRule()(tmp_path / f"{name}.mat", VOC)


def test_mat_file_that_unpacks_to_too_much_is_rejected(tmp_path):
    path = write_mat(tmp_path / "bomb.mat", np.zeros((9, 12), np.uint8))
    packer, packed = zlib.compressobj(), io.BytesIO()
    for _ in range(100):
        packed.write(packer.compress(bytes(10**6)))
    packed.write(packer.flush())
    element = (15).to_bytes(4, "little") + len(packed.getvalue()).to_bytes(4, "little")
    path.write_bytes(path.read_bytes() + element + packed.getvalue())
    assert path.stat().st_size < 200_000
    with pytest.raises(BadInput, match=r"bomb\.mat: .*decompression bomb"):
        build_sbd.SbdRule()(path, VOC)


def test_missing_files_are_named(raw, sbd, tmp_path, monkeypatch):
    (sbd / "cls" / "s1.mat").unlink()
    (sbd / "img" / "s2.jpg").unlink()
    with pytest.raises(UserError) as caught:
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)
    expected = [("cls/s1.mat: mask", "not found"), ("img/s2.jpg: image", "not found")]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    (sbd / "val.txt").unlink()
    with pytest.raises(UserError, match=r"`sbd_dir`.*sbd.val\.txt"):
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)
    shutil.rmtree(raw / build_sbd.AUG_LABELS)
    with pytest.raises(UserError, match="`sbd_dir`.*SegmentationClassAug"):
        build_sbd.build(raw, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match='`--sbd_dir` needs the extra "sbd"'):
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)


def test_images_of_val_are_left_out_and_paths_in_lists_are_rejected(raw, sbd, tmp_path):
    with open(sbd / "train.txt", "a") as file:
        file.write("\nv1\n/etc/passwd\n../t0\n")
    with pytest.raises(UserError) as caught:
        build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd)
    expected = [("train.txt, line 5: ", "'/etc/passwd'"), ("train.txt, line 6: ", "'../t0'")]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    (manifest,) = build_sbd.build(raw, tmp_path / "out", sbd_dir=sbd, on_error="skip")
    assert manifest.num_examples == 6


def test_program_reads_its_flags(raw, sbd, tmp_path, capsys):
    values = shards.flag_values(
        build_sbd.define_flags,
        *(f"--raw_dir={raw}", f"--sbd_dir={sbd}", f"--output_dir={tmp_path / 'out'}"),
        "--splits=trainaug,train,val",
    )
    build_sbd.main(values)
    assert manifests.finished_splits(tmp_path / "out") == ["train", "trainaug", "val"]
    assert f"written to {tmp_path / 'out'}" in capsys.readouterr().out
