"""Predictions of scenes: the bands of the run, and polygons for a GIS."""

import json

import numpy as np
import pytest

from kseg import export as exporting
from kseg.data.datasets import LabelSet
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.inference.tiles import Tiling
from kseg.predict import __main__ as program
from kseg.predict import predict, vectors
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from tests import scene_files
from tests.predict.networks import bright_network
from tests.program_calls import call_main

fiona = pytest.importorskip("fiona", reason='needs the extra "geo"')
rasterio = pytest.importorskip("rasterio", reason='needs the extra "geo"')

LABELS = LabelSet(names=("dark", "bright"), colours=((10, 20, 30), (200, 100, 0)))
BANDS = SceneBands(bands=(4, 3, 2), limits=((0, 4000),) * 3, dtype="uint16")


@pytest.fixture(scope="module")
def model():
    return bright_network(contrast=3)


def bright_scene(path, **options):
    """Writes a scene with two bright places, of 20 x 70 pixels and of 4, and one without data."""
    pixels = np.full((4, 90, 130), 100, np.uint16)
    pixels[3, 30:50, 20:90] = 3900
    pixels[3, 80:82, 120:122] = 3900
    pixels[:, 35:40, 60:70] = 0
    scene_files.write(path, pixels, nodata=0, **options)


def predicted(model, folder, target=None, images=("a",), **options):
    paths = {name: folder / f"{name}.tif" for name in images}
    tiling = Tiling(tile=(32, 64), overlap=0, stride=32)
    return predict(
        model, LABELS, paths, folder / "out", tiling=tiling, vectors=target, scene_bands=BANDS,
        **options,
    )  # fmt: skip


def test_a_scene_is_seen_in_the_bands_and_limits_of_the_run(model, tmp_path):
    pixels = scene_files.write(tmp_path / "a.tif", scene_files.values())
    assert predicted(model, tmp_path) == []
    with rasterio.open(tmp_path / "out" / "labels" / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.rint(pixels[3] / 4000 * 255) > 127)
    scene_files.write(tmp_path / "a.tif", scene_files.values(dtype="uint8"))
    (failure,) = predicted(model, tmp_path)
    assert "uint16" in failure and "uint8" in failure
    scene_files.write(tmp_path / "a.tif", scene_files.values(bands=3))
    (failure,) = predicted(model, tmp_path)
    assert "4, 3, 2" in failure


@pytest.mark.parametrize("name", ["out.gpkg", "out.geojson"])
def test_polygons_have_class_area_and_place_and_tiles_do_not_cut_them(model, tmp_path, name):
    bright_scene(tmp_path / "a.tif")
    with vectors.VectorFile(tmp_path / name, LABELS, min_area=20, classes=["bright"]) as target:
        assert predicted(model, tmp_path, target) == []
        assert not (tmp_path / name).exists()
    with fiona.open(tmp_path / name) as file:
        assert rasterio.CRS.from_wkt(file.crs_wkt).to_epsg() == 32632
        (feature,) = file
    assert dict(feature.properties) == {
        "class": "bright", "class_id": 1, "area": (20 * 70 - 5 * 10) * 4.0,
    }  # fmt: skip
    outer, hole = feature.geometry.coordinates
    assert set(outer) == set(map(tuple, scene_files.box(20, 30, 90, 50)["coordinates"][0]))
    assert set(hole) == set(map(tuple, scene_files.box(60, 35, 70, 40)["coordinates"][0]))


def test_each_scene_becomes_a_layer_except_one_that_cannot_be_read(model, tmp_path):
    bright_scene(tmp_path / "a.tif")
    bright_scene(tmp_path / "b.tif", crs="EPSG:32633")
    (tmp_path / "c.tif").write_bytes(b"II*\0 and nothing else")
    with vectors.VectorFile(tmp_path / "out.gpkg", LABELS) as target:
        (failure,) = predicted(model, tmp_path, target, "abc")
    assert failure.startswith(str(tmp_path / "c.tif"))
    assert sorted(fiona.listlayers(tmp_path / "out.gpkg")) == ["a", "b"]
    with fiona.open(tmp_path / "out.gpkg", layer="b") as file:
        assert rasterio.CRS.from_wkt(file.crs_wkt).to_epsg() == 32633
        assert sorted(feature.properties["class"] for feature in file) == [
            "bright", "bright", "dark",
        ]  # fmt: skip
    assert [path.name for path in tmp_path.glob(".partial-*")] == []


def test_scenes_whose_layers_would_have_one_name_keep_their_polygons(model, tmp_path):
    names = "2020/a", "2020_a", "2020_A", "2020_a_2"
    (tmp_path / "2020").mkdir()
    for number, name in enumerate(names):
        bright_scene(tmp_path / f"{name}.tif", crs=f"EPSG:{32631 + number}")
    with vectors.VectorFile(tmp_path / "out.gpkg", LABELS) as target:
        assert predicted(model, tmp_path, target, names) == []
    zones = {}
    for layer in fiona.listlayers(tmp_path / "out.gpkg"):
        with fiona.open(tmp_path / "out.gpkg", layer=layer) as file:
            assert len(file) == 3
            zones[layer] = rasterio.CRS.from_wkt(file.crs_wkt).to_epsg() - 32631
    assert zones == {"2020_a": 0, "2020_a_2": 1, "2020_A_3": 2, "2020_a_2_2": 3}


def test_an_error_leaves_no_file_behind(tmp_path, model):
    bright_scene(tmp_path / "a.tif")
    with pytest.raises(RuntimeError):
        with vectors.VectorFile(tmp_path / "out.gpkg", LABELS) as target:
            predicted(model, tmp_path, target)
            raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "out"]


def test_areas_in_degrees_are_square_metres_of_the_ellipsoid():
    wgs84 = rasterio.CRS.from_epsg(4326)
    globe = np.array([(-180, -90), (180, -90), (180, 90), (-180, 90), (-180, -90)], float)
    assert vectors.area_of([globe], wgs84) == pytest.approx(5.10065622e14, rel=1e-6)
    square = np.array([(0, 0), (300, 0), (300, 300), (0, 300), (0, 0)], float)
    feet = rasterio.CRS.from_epsg(2263)  # In US survey feet.
    assert vectors.area_of([square], feet) == pytest.approx((300 * 1200 / 3937) ** 2)
    assert vectors.area_of([square, square / 3], None) == 80_000


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--vectors=out.shp"], "--vectors"),
        (["--vectors=out.gpkg", "--vector_classes=road"], "--vector_classes"),
        (["--min_area=3"], "--vectors"),
        (["--vectors=out.geojson"], "--vectors.*2 TIFFs"),
        (["--vectors=out.gpkg", "--images=*.jpg"], "--vectors.*TIFF"),
    ],
)
def test_flags_are_checked_before_the_network_is_built(arguments, flag, tmp_path, monkeypatch):
    start(RunFolder(tmp_path / "run"), Experiment(model_dir=str(tmp_path / "run")), LABELS)
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        scene_files.write(tmp_path / f"{name}.tif", scene_files.values())
        (tmp_path / f"{name}.jpg").write_bytes(b"not looked at")
    with pytest.raises(UserError, match=flag):
        call_main(program, "--model_dir=run", "--images=*.tif", "--output_dir=out", *arguments)


def test_the_program_reads_the_bands_from_the_run_and_writes_polygons(tmp_path, capsys):
    experiment = Experiment(
        model_dir=str(tmp_path / "run"), dilation_rates=(1,), decoder=False, output_stride=16
    )
    run = RunFolder(experiment.model_dir)
    start(run, experiment, LABELS, bands=BANDS)
    network = experiment.build_model(LABELS.num_classes)
    network.compile(optimizer="sgd")
    run.checkpoints.save(network, Position())
    scene_files.write(tmp_path / "a.tif", scene_files.values())
    status = call_main(
        program, f"--model_dir={run.path}", f"--images={tmp_path / 'a.tif'}", "--tile=64",
        f"--output_dir={tmp_path / 'out'}", f"--vectors={tmp_path / 'out.gpkg'}",
    )  # fmt: skip
    assert status == 0
    with fiona.open(tmp_path / "out.gpkg") as file:
        assert f"{len(file)} polygons" in capsys.readouterr().out
        total = sum(feature.properties["area"] for feature in file)
    assert total == pytest.approx(100 * 140 * 4)


def test_a_run_keeps_the_bands_and_refuses_data_with_others(tmp_path):
    experiment = Experiment(model_dir=str(tmp_path / "run"))
    start(RunFolder(tmp_path / "run"), experiment, LABELS, bands=BANDS)
    assert RunFolder(tmp_path / "run").scene_bands == BANDS
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "step-00000001.npz").touch()
    start(RunFolder(tmp_path / "run"), experiment, LABELS, bands=BANDS)
    with pytest.raises(UserError, match="scene bands"):
        start(RunFolder(tmp_path / "run"), experiment, LABELS)
    start(RunFolder(tmp_path / "run"), experiment, LABELS, overwrite=True)
    assert RunFolder(tmp_path / "run").scene_bands is None


def test_the_labels_of_an_export_say_how_a_scene_is_prepared(model, tmp_path, monkeypatch):
    def write(model, path, **options):
        path.mkdir()

    monkeypatch.setattr(exporting.saved_model, "write", write)
    monkeypatch.setattr(exporting.warm_up, "write", lambda *arguments: None)
    for bands in (BANDS, None):
        path = exporting.export(model, LABELS, tmp_path, scene_bands=bands)
        content = json.loads((path / "assets.extra" / "labels.json").read_text())
        found = content.get("scene_bands")
        assert (found and SceneBands.from_json(found)) == bands
