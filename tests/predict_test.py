"""Prediction: sizes, names of the outputs, images that cannot be read."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

from kseg import predict
from kseg.data.datasets import VOC, LabelSet
from kseg.errors import UserError
from kseg.evaluation.inference import classifier

LABELS = LabelSet(names=("dark", "bright"), colours=((10, 20, 30), (200, 100, 0)))


@pytest.fixture(scope="module")
def model():
    """A network that answers `bright` where the red channel is above 127.5."""
    images = keras.Input((None, None, 3))
    logits = keras.layers.Conv2D(2, 1)
    network = keras.Model(images, logits(images))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 1] = 1
    logits.set_weights([kernel, np.array([0, -127.5], np.float32)])
    return network


def write_image(path, height=5, width=9, red=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :, 0] = red
    Image.fromarray(picture).save(path)
    return picture


def test_labels_have_the_size_of_the_image_and_the_class_of_each_pixel(model):
    image = np.zeros((3, 7, 3), np.uint8)
    image[1, 2:4, 0] = 255
    labels = classifier(model)(image[np.newaxis])[0].numpy()
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, image[..., 0] // 255)


def test_each_image_gets_a_palette_mask_and_an_overlay_at_its_own_size(model, tmp_path):
    picture = write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "b.png", height=12, width=4)
    images = predict.find_images(str(tmp_path / "in" / "*.png"), tmp_path / "out")
    assert predict.predict(model, LABELS, images, tmp_path / "out") == []
    with Image.open(tmp_path / "out" / "labels" / "a.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), picture[..., 0] // 200)
        assert tuple(mask.getpalette()[3:6]) == LABELS.colours[1]
    with Image.open(tmp_path / "out" / "overlays" / "b.png") as mixed:
        assert mixed.size == (4, 12)
        assert mixed.getpixel((3, 0)) == (200, 50, 0)
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_a_bad_image_is_named_and_the_others_go_on(model, tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "c.png", height=100, width=100)
    (tmp_path / "b.png").write_text("no picture")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        whole, "JPEG"
    )
    (tmp_path / "d.jpg").write_bytes(whole.getvalue()[:900])
    Image.new("RGB", (3, 3)).save(tmp_path / "e.bmp")
    write_image(tmp_path / "f.png")
    images = predict.find_images(str(tmp_path / "*.*"), tmp_path / "out")
    failures = predict.predict(
        model, LABELS, images, tmp_path / "out", sheet_rows=0, max_pixels=5000
    )
    assert len(failures) == 4
    for failure, name, reason in zip(
        failures,
        ("b.png", "c.png", "d.jpg", "e.bmp"),
        ("not a picture", "at most 5000 pixels", "damaged", "must be JPEG, PNG or TIFF"),
        strict=True,
    ):
        assert failure.startswith(str(tmp_path / name)) and reason in failure
    written = sorted(path.name for path in (tmp_path / "out" / "labels").iterdir())
    assert written == ["a.png", "f.png"]
    assert not (tmp_path / "out" / "contact_sheet.png").exists()


def test_names_of_outputs_keep_the_folders_under_the_wildcard(tmp_path):
    write_image(tmp_path / "in" / "x" / "a.png")
    write_image(tmp_path / "in" / "y" / "a.png")
    images = predict.find_images(str(tmp_path / "in" / "*" / "a.png"), tmp_path / "out")
    assert list(images) == ["x/a", "y/a"]
    assert list(predict.find_images(str(tmp_path / "in" / "x" / "a.png"), tmp_path)) == ["a"]


def test_outputs_of_an_earlier_run_are_no_input(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "out" / "labels" / "a.png")
    images = predict.find_images(str(tmp_path / "**" / "*.png"), tmp_path / "out")
    assert list(images) == ["a"]


def test_two_images_that_would_write_one_file_are_refused(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"same outputs \(a\.png\): .*a\.jpg and .*a\.png"):
        predict.find_images(str(tmp_path / "a.*"), tmp_path / "out")


def test_a_glob_without_match_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`--images` must match .*nothing\*"):
        predict.find_images(str(tmp_path / "nothing*"), tmp_path)


def test_prediction_decodes_jpeg_as_pillow_does(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (33, 47, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=70)
    with Image.open(tmp_path / "a.jpg") as picture:
        expected = np.asarray(picture)
    np.testing.assert_array_equal(predict.read_image(tmp_path / "a.jpg"), expected)


@pytest.fixture(scope="module")
def voc_model():
    """A network that answers the number of the class that the red channel is next to."""
    images = keras.Input((None, None, 3))
    levels = np.arange(VOC.num_classes, dtype=np.float32)
    logits = keras.layers.Conv2D(VOC.num_classes, 1)
    network = keras.Model(images, logits(images))
    kernel = np.zeros((1, 1, 3, VOC.num_classes), np.float32)
    kernel[0, 0, 0] = 2 * levels  # -(red - level)^2 without red^2
    logits.set_weights([kernel, -(levels**2)])
    return network


def test_a_submission_lies_as_the_voc_server_expects_it(voc_model, tmp_path):
    for number in (7, 20):
        write_image(tmp_path / "in" / f"2008_{number:06}.png", red=number)
    images = predict.find_images(str(tmp_path / "in" / "*.png"), None)
    folder = tmp_path / "upload"
    assert predict.predict(voc_model, VOC, images, None, submission=folder) == []
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert written == [
        "results/VOC2012/Segmentation/comp6_test_cls/2008_000007.png",
        "results/VOC2012/Segmentation/comp6_test_cls/2008_000020.png",
    ]
    with Image.open(folder / written[1]) as mask:
        assert mask.mode == "P" and mask.size == (9, 5)
        assert set(np.unique(mask)) == {0, 20}
        assert tuple(mask.getpalette()[60:63]) == VOC.colours[20]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "upload"]


def test_a_submission_of_other_classes_or_of_two_images_of_one_name_is_refused(model, tmp_path):
    write_image(tmp_path / "x" / "a.png")
    write_image(tmp_path / "y" / "a.png")
    images = predict.find_images(str(tmp_path / "*" / "a.png"), None)
    with pytest.raises(UserError, match="21 classes of PASCAL VOC.* Received: dark, bright"):
        predict.predict(model, LABELS, images, None, submission=tmp_path / "upload")
    with pytest.raises(UserError, match=r"x/a\.png and .*y/a\.png would write the same file"):
        predict.predict(model, VOC, images, None, submission=tmp_path / "upload")
