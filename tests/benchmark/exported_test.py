"""The table of exported forms, at a tiny size; times are measured and not judged."""

import json

import pytest

from kseg import errors, train
from kseg.benchmark import exported, exported_forms, runner
from kseg.runs.experiment import Experiment
from tfrecords_tools import build_voc

WEIGHTS = "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"


@pytest.fixture
def small(monkeypatch):
    variant = {"model": "deeplab_v3_plus", "decoder": False, "filters": 4, "context": "none"}
    monkeypatch.setattr(exported, "NETWORKS", {"none": variant})


def run(**arguments):
    return runner.run(exported.BENCHMARK, repetitions=1, **arguments)


@pytest.mark.slow
def test_measures_both_saved_models_and_names_extras_that_are_not_installed(
    small, monkeypatch, capsys
):
    monkeypatch.setattr(exported_forms, "find_spec", lambda package: None)
    plain, folded = run(only=("none",), shape=(1, 33, 33))
    assert plain.setting == folded.setting == "none, 33x33"
    assert (plain.form, folded.form) == (exported.PLAIN, "SavedModel")
    assert plain.ratio == 1 and folded.ratio == folded.ms[1] / plain.ms[1]
    # The 1.8 million parameters of the backbone in four bytes each, and the graph.
    assert 7.2 < folded.megabytes < 9
    printed = capsys.readouterr().out
    assert "edge" in printed and "onnx" in printed


@pytest.mark.slow
def test_measures_every_form_whose_extra_is_installed(small):
    pytest.importorskip("ai_edge_litert", reason="needs the extra edge")
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    pytest.importorskip("openvino", reason="needs the extra openvino")
    rows = run(only=("none",), shape=(1, 33, 33))
    assert [row.form for row in rows] == [
        "SavedModel, variables and norms", "SavedModel",
        "LiteRT float32", "LiteRT float16", "LiteRT int8", "ONNX", "ONNX by OpenVINO",
    ]  # fmt: skip
    assert all(min(row.ms) > 0 and row.miou is None for row in rows)


@pytest.fixture(scope="module")
def animals(real_data, tmp_path_factory):
    """The experiment of a network trained for three epochs on 437 photographs; val has 40."""
    folder = tmp_path_factory.mktemp("animals")
    raw = folder / "raw"
    lists = raw / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (raw / name).symlink_to(real_data / "voc_animals" / name)
    for split, most in (("train", None), ("val", 40)):
        listed = real_data / "voc_animals" / "ImageSets" / "Segmentation" / f"{split}.txt"
        (lists / f"{split}.txt").write_text("\n".join(listed.read_text().split()[:most]))
    build_voc.build(raw, folder / "records")
    experiment = Experiment(
        data_dir=str(folder / "records"),
        model_dir=str(folder / "run"),
        val_split="",
        backbone_weights=str(real_data / WEIGHTS),
        context="ksac",
        dilation_rates=(1, 3),
        decoder=False,
        crop_size=(193, 193),
        min_scale=0.75,
        max_scale=1.25,
        epochs=3,
        learning_rate=0.01,
        batch_norm_momentum=0.95,
    )
    assert train.train(experiment) == 0
    return experiment


@pytest.mark.slow
def test_every_form_of_a_trained_run_reaches_the_miou_of_the_saved_model(animals, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs the extra edge")
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    pytest.importorskip("openvino", reason="needs the extra openvino")
    file = tmp_path / "rows.json"
    run(results=str(file), shape=(1, 289, 289), model_dir=animals.model_dir)
    miou = {row["form"]: row["miou"] for row in json.loads(file.read_text())}
    truth = miou.pop("SavedModel")
    assert truth > 0.06, truth  # the background alone gives 0.04
    assert abs(miou.pop("LiteRT int8") - truth) <= 0.02
    floats = {"LiteRT float32", "LiteRT float16", "ONNX", "ONNX by OpenVINO"}
    assert set(miou) == {exported.PLAIN, *floats}
    assert all(abs(score - truth) <= 0.002 for score in miou.values()), (truth, miou)


@pytest.mark.slow
def test_an_image_larger_than_the_shape_is_refused(animals):
    with pytest.raises(errors.UserError, match="--shape.*'val'"):
        run(shape=(1, 33, 33), model_dir=animals.model_dir)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"only": ("zoo",)}, "--only"),
        ({"shape": (2, 33, 33)}, "--shape"),
        ({"data_dir": "records"}, "--data_dir"),
        ({"only": ("ksac",), "model_dir": "runs/x"}, "--model_dir"),
        ({"model_dir": "nowhere"}, "nowhere"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments, name):
    with pytest.raises(errors.UserError, match=name):
        run(**arguments)
