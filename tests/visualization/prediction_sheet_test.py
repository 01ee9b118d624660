"""The sheet of predictions of several runs."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import VOC, LabelSet
from kseg.data.images import read_image
from kseg.data.masks import MaskRule
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from kseg.visualization import image_files, sheets
from kseg.visualization.prediction_sheet import CELL_SIZE, PredictionSheet

LABELS = LabelSet(names=("dark", "bright"), colours=((10, 20, 30), (200, 100, 0)))
LEFT, TOP, STEP = 8, 30 + 22, CELL_SIZE + 8


@pytest.fixture
def make_run(tmp_path):
    def make(name, label_set=LABELS):
        run = RunFolder(tmp_path / name)
        start(run, Experiment(model_dir=str(tmp_path / name)), label_set)
        return run

    return make


@pytest.fixture
def images(tmp_path):
    """Two images and their masks, one wide and one tall."""
    paths = {}
    for seed, (name, size) in enumerate({"a": (12, 24), "b": (24, 6)}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        paths[name] = tmp_path / f"{name}.jpg"
        Image.fromarray(pixels).save(paths[name])
        mask = pixels[..., 1] // 128
        mask[0] = 255
        image_files.save_palette_png(tmp_path / f"{name}.png", mask, LABELS.colours)
    return paths


def threshold_model(channel):
    """A network that predicts `bright` where one colour channel is above 127.5."""
    inputs = keras.Input((None, None, 3))
    logits = keras.layers.Conv2D(2, 1)
    network = Segmenter(inputs, logits(inputs))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, channel, 1] = 1
    logits.set_weights([kernel, np.array([0, -127.5], np.float32)])
    return network


def make_sheet(runs, images, label_dir=None):
    return PredictionSheet(runs, images, label_dir, read_image)


def cell_pixels(picture):
    """A picture scaled to its cell, with white on its left and right."""
    fitted = sheets.fitted(picture, CELL_SIZE)
    cell = np.full((fitted.shape[0], CELL_SIZE, 3), 255, np.uint8)
    left = (CELL_SIZE - fitted.shape[1]) // 2
    cell[:, left : left + fitted.shape[1]] = fitted
    return cell


@pytest.mark.parametrize("with_labels", [True, False])
def test_columns_are_image_runs_and_labels(make_run, images, tmp_path, with_labels):
    runs = {make_run("red"): threshold_model(0), make_run("blue"): threshold_model(2)}
    sheet = make_sheet(list(runs), images, tmp_path if with_labels else None)
    for run, model in runs.items():
        sheet.add(run.path.name, run, model)
    pixels = np.asarray(sheet.picture())
    assert pixels.shape[1] == (3 + with_labels) * STEP + LEFT
    top = TOP
    for name, path in images.items():
        image = read_image(path)
        expected = [image]
        expected += [
            np.array(LABELS.colours, np.uint8)[(image[..., channel] > 127).astype(int)]
            for channel in (0, 2)
        ]
        if with_labels:
            expected.append(np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")))
        for column, picture in enumerate(expected):
            left, drawn = LEFT + column * STEP, cell_pixels(picture)
            cell = pixels[top : top + len(drawn), left : left + CELL_SIZE]
            np.testing.assert_array_equal(cell, drawn, err_msg=f"{name}, {column}")
        top += len(drawn) + STEP - CELL_SIZE + 22


def test_runs_with_different_classes_are_refused(make_run, images):
    with pytest.raises(UserError, match=r"--images.*voc"):
        make_sheet([make_run("two"), make_run("voc", VOC)], images)


@pytest.mark.parametrize(
    "mask",
    [
        None,
        np.zeros((24, 12), np.uint8),
        np.full((12, 24), 2, np.uint8),
        np.full((12, 24, 3), (10, 20, 30), np.uint8),
    ],
    ids=("missing", "another size", "ids that are not classes", "colours"),
)
def test_an_invalid_mask_is_named(make_run, images, tmp_path, mask):
    if mask is None:
        (tmp_path / "a.png").unlink()
    else:
        Image.fromarray(mask).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"--labels.*a\.png"):
        make_sheet([make_run("one")], images, tmp_path)


def test_masks_are_read_as_those_of_the_run_or_as_the_flag_says(images, tmp_path):
    run = RunFolder(tmp_path / "run")
    rule = MaskRule.of_colours(LABELS, (1, 2, 3))
    start(run, Experiment(model_dir=str(run.path)), LABELS, mask_rule=rule)
    again = RunFolder(run.path)
    assert again.mask_rule == rule
    ids = np.zeros((12, 24), np.uint8)
    ids[:, :12] = 1
    Image.fromarray(np.uint8(LABELS.colours)[ids]).save(tmp_path / "a.png")
    grey = {"a": images["a"]}
    expected = make_sheet([again], grey, tmp_path).picture()
    Image.fromarray(ids).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"--labels.*a\.png.*--masks_are"):
        make_sheet([again], grey, tmp_path)
    sheet = PredictionSheet([again], grey, tmp_path, read_image, "ids")
    np.testing.assert_array_equal(sheet.picture(), expected)


def test_runs_of_earlier_versions_have_masks_of_ids(make_run):
    run = make_run("old")
    labels = json.loads(run.labels_file.read_text())
    assert labels.pop("masks_are") == "ids"
    run.labels_file.write_text(json.dumps(labels))
    assert RunFolder(run.path).mask_rule == MaskRule()
    assert RunFolder(run.path).label_set == LABELS


def test_more_than_50_images_are_refused(make_run, images):
    many = {str(number): images["a"] for number in range(51)}
    with pytest.raises(UserError, match="--images.*50.*51"):
        make_sheet([make_run("one")], many)


def test_a_long_run_name_does_not_reach_the_next_column(make_run, images):
    name = "voc_animals_mobilenet_v2_ksac_without_decoder_seed_1"
    sheet = make_sheet([make_run(name)], images)
    sheet.add(name, make_run(name), threshold_model(0))
    pixels = np.asarray(sheet.picture())
    heading = pixels[8:28, LEFT + STEP :].min(axis=(0, 2)) < 128
    assert heading[200:230].any() and not heading[CELL_SIZE:].any()
