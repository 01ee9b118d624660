"""Prediction: sizes and names of the results, images that cannot be read, the program."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

from kseg import predict
from kseg.data.datasets import VOC, LabelSet
from kseg.data.images import find_images
from kseg.errors import UserError
from kseg.inference import crf
from kseg.inference.config import InferenceConfig
from kseg.inference.scorer import classifier
from kseg.inference.tiles import Tiling
from kseg.models import Segmenter
from kseg.predict import __main__ as program
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from kseg.visualization import sheets
from tests.predict.networks import bright_network
from tests.program_calls import call_main

LABELS = LabelSet(names=("dark", "bright"), colours=((10, 20, 30), (200, 100, 0)))


@pytest.fixture(scope="module")
def model():
    """Predicts `bright` where the red channel is above 127.5, with their difference as logit."""
    return bright_network(contrast=127.5)


def write_image(path, height=5, width=9, red=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :, 0] = red
    Image.fromarray(picture).save(path)
    return picture


def test_the_classifier_gives_the_class_of_each_pixel(model):
    image = np.zeros((3, 7, 3), np.uint8)
    image[1, 2:4, 0] = 255
    labels = classifier(model)(image[np.newaxis])[0].numpy()
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, image[..., 0] // 255)


def test_each_image_gets_a_palette_mask_and_an_overlay_of_its_size(model, tmp_path):
    picture = write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "b.png", height=12, width=4)
    images = find_images(str(tmp_path / "in" / "*.png"), tmp_path / "out")
    assert predict.predict(model, LABELS, images, tmp_path / "out") == []
    with Image.open(tmp_path / "out" / "labels" / "a.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), picture[..., 0] // 200)
        assert tuple(mask.getpalette()[3:6]) == LABELS.colours[1]
    with Image.open(tmp_path / "out" / "overlays" / "b.png") as mixed:
        assert mixed.size == (4, 12)
        assert mixed.getpixel((3, 0)) == (200, 50, 0)
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_an_unreadable_image_is_named_and_the_others_are_predicted(model, tmp_path):
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
    images = find_images(str(tmp_path / "*.*"), tmp_path / "out")
    failures = predict.predict(
        model, LABELS, images, tmp_path / "out", sheet_rows=0, max_pixels=5000
    )
    for failure, name in zip(failures, ("b.png", "c.png", "d.jpg"), strict=True):
        assert failure.startswith(f"{tmp_path / name}: ")
    assert "5000" in failures[1]
    written = sorted(path.name for path in (tmp_path / "out" / "labels").iterdir())
    assert written == ["a.png", "e.png", "f.png"]
    assert not (tmp_path / "out" / "contact_sheet.png").exists()


def noise(height, width, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_legend_of_ids_colours_and_names_is_written(model, tmp_path):
    write_image(tmp_path / "a.png")
    predict.predict(model, LABELS, {"a": tmp_path / "a.png"}, tmp_path / "out")
    with Image.open(tmp_path / "out" / "legend.png") as legend:
        pixels = {pixel for _, pixel in legend.getcolors(10_000)}
        expected = sheets.legend(LABELS.names, LABELS.colours)
        assert set(LABELS.colours) <= pixels
        np.testing.assert_array_equal(np.asarray(legend), np.asarray(expected))


def test_probabilities_are_those_of_the_network_and_change_no_labels(model, tmp_path):
    Image.fromarray(noise(20, 30)).save(tmp_path / "a.png")
    images = {"x/a": tmp_path / "a.png"}
    for folder, options in (("plain", {}), ("both", {"probabilities": True})):
        assert predict.predict(model, LABELS, images, tmp_path / folder, **options) == []
    found = np.load(tmp_path / "both" / "probabilities" / "x" / "a.npz")["probabilities"]
    assert found.dtype == np.float16 and found.shape == (20, 30, 2)
    odds = np.exp(127.5 - noise(20, 30)[..., 0].astype(np.float64))
    np.testing.assert_allclose(found[..., 1], 1 / (1 + odds), atol=1e-3)
    labels = [(tmp_path / name / "labels/x/a.png").read_bytes() for name in ("plain", "both")]
    assert labels[0] == labels[1] and not (tmp_path / "plain" / "probabilities").exists()


def test_tiled_images_get_the_classes_of_the_whole_image(model, tmp_path):
    Image.fromarray(noise(70, 200)).save(tmp_path / "large.png")
    Image.fromarray(noise(64, 64)).save(tmp_path / "small.png")
    images = {name: tmp_path / f"{name}.png" for name in ("large", "small")}
    tiling = Tiling(tile=(64, 64), overlap=0, stride=32)
    for folder, options in (("whole", {}), ("tiled", {"tiling": tiling, "probabilities": True})):
        assert predict.predict(model, LABELS, images, tmp_path / folder, **options) == []
    for name in images:
        for part in ("labels", "overlays"):
            files = [tmp_path / folder / part / f"{name}.png" for folder in ("whole", "tiled")]
            np.testing.assert_array_equal(*map(np.asarray, map(Image.open, files)))
        found = np.load(tmp_path / "tiled" / "probabilities" / f"{name}.npz")["probabilities"]
        labels = np.asarray(Image.open(tmp_path / "whole" / "labels" / f"{name}.png"))
        np.testing.assert_array_equal(found.argmax(-1), labels)


def test_the_inference_config_applies_and_its_padding_limits_the_size(model, tmp_path):
    for name, size in (("fits", (9, 9)), ("large", (9, 12))):
        Image.fromarray(noise(*size)).save(tmp_path / f"{name}.png")
    images = {name: tmp_path / f"{name}.png" for name in ("fits", "large")}
    config = InferenceConfig(scales=(0.5,), flip=True, eval_size=(10, 10))
    failures = predict.predict(model, LABELS, images, tmp_path / "out", config=config)
    assert len(failures) == 1 and "large.png: `--eval_size`" in failures[0]
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "fits.png"))
    expected = classifier(model, config)(noise(9, 9)[np.newaxis])[0]
    np.testing.assert_array_equal(labels, expected)
    assert (labels != noise(9, 9)[..., 0] // 128).any(), "half the size must lose details"
    tiling = Tiling(tile=(32, 32), overlap=0, stride=32)
    with pytest.raises(UserError, match="`--eval_size`"):
        predict.predict(model, LABELS, images, tmp_path / "out", config=config, tiling=tiling)


def test_the_crf_receives_image_and_probabilities_and_its_result_is_written(
    model, tmp_path, monkeypatch
):
    def swap_classes(image, probabilities):
        assert image.dtype == np.uint8 and image.shape[:2] == probabilities.shape[:2]
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
        return probabilities[..., ::-1]

    monkeypatch.setattr(crf, "require", lambda: None)
    monkeypatch.setattr(crf, "refine", swap_classes)
    picture = write_image(tmp_path / "a.png")
    images = {"a": tmp_path / "a.png"}
    predict.predict(model, LABELS, images, tmp_path / "out", config=InferenceConfig(crf=True))
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "a.png"))
    np.testing.assert_array_equal(labels, 1 - picture[..., 0] // 200)


@pytest.fixture(scope="module")
def voc_model():
    """A network that predicts the class whose id is nearest to the red level."""
    images = keras.Input((None, None, 3))
    levels = np.arange(VOC.num_classes, dtype=np.float32)
    logits = keras.layers.Conv2D(VOC.num_classes, 1)
    network = Segmenter(images, logits(images))
    kernel = np.zeros((1, 1, 3, VOC.num_classes), np.float32)
    kernel[0, 0, 0] = 2 * levels  # -(red - level)^2 without the term red^2.
    logits.set_weights([kernel, -(levels**2)])
    return network


def test_a_submission_has_the_folders_and_files_of_the_voc_server(voc_model, tmp_path):
    for number in (7, 20):
        write_image(tmp_path / "in" / f"2008_{number:06}.png", red=number)
    images = find_images(str(tmp_path / "in" / "*.png"), None)
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


def test_a_submission_of_other_classes_or_of_images_of_one_name_is_an_error(model, tmp_path):
    write_image(tmp_path / "x" / "a.png")
    write_image(tmp_path / "y" / "a.png")
    images = find_images(str(tmp_path / "*" / "a.png"), None)
    with pytest.raises(UserError, match="`--submission`.* Received: dark, bright"):
        predict.predict(model, LABELS, images, None, submission=tmp_path / "upload")
    with pytest.raises(UserError, match=r"`--submission`.*x/a\.png and .*y/a\.png"):
        predict.predict(model, VOC, images, None, submission=tmp_path / "upload")


def test_the_program_skips_an_unreadable_image_and_returns_1(tmp_path, capsys):
    experiment = Experiment(
        model_dir=str(tmp_path / "run"), dilation_rates=(1,), decoder=False, output_stride=16
    )
    run = RunFolder(experiment.model_dir)
    start(run, experiment, LABELS)
    network = experiment.build_model(LABELS.num_classes)
    network.compile(optimizer="sgd")
    run.checkpoints.save(network, Position())
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(noise(50, 130)).save(tmp_path / "in" / f"{name}.jpg")
    (tmp_path / "in" / "bad.png").write_text("no picture")
    status = call_main(
        program, f"--model_dir={run.path}", f"--images={tmp_path / 'in'}", "--flip",
        f"--output_dir={tmp_path / 'out'}", "--tile=64", "--probabilities",
    )  # fmt: skip
    assert status == 1
    printed = capsys.readouterr().out
    how = str(InferenceConfig(flip=True)).replace("whole images", "tiles of 64x64")
    assert "2 of 3 images" in printed and how in printed
    assert printed.count(f"skipped {tmp_path / 'in' / 'bad.png'}: ") == 1
    written = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert written == {
        "contact_sheet.png", "legend.png", "labels/a.png", "labels/b.png", "overlays/a.png",
        "overlays/b.png", "probabilities/a.npz", "probabilities/b.npz",
    }  # fmt: skip
    for arguments, message in (
        (("--tile=65",), r"`--tile`.*\(16\)\. Received: 65,65"),
        (("--tile=wide",), "`--tile`.*Received: wide"),
        (("--overlap=16",), "`--overlap`.*`--tile`"),
        (("--eval_dilation_rates=1,2",), "`--eval_dilation_rates`"),
    ):
        with pytest.raises(UserError, match=message):
            call_main(
                program, f"--model_dir={run.path}", f"--images={tmp_path / 'in'}",
                f"--output_dir={tmp_path / 'out'}", *arguments,
            )  # fmt: skip


def test_masks_beside_the_images_are_not_replaced(model, tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "labels" / "a.png")
    before = (tmp_path / "labels" / "a.png").read_bytes()
    images = find_images(str(tmp_path / "images"), tmp_path)
    with pytest.raises(UserError, match="`--output_dir`.*labels"):
        predict.predict(model, LABELS, images, tmp_path)
    assert (tmp_path / "labels" / "a.png").read_bytes() == before
    for _ in range(2):
        assert predict.predict(model, LABELS, images, tmp_path / "out") == []
