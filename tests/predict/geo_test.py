"""TIFFs: georeferencing, files that cannot be read, and memory independent of the size."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kseg import predict
from kseg.data.datasets import VOC, LabelSet
from kseg.data.images import find_images
from kseg.data.scenes import open_scene
from kseg.inference.tiles import Tiling
from tests.predict.networks import bright_network

rasterio = pytest.importorskip("rasterio", reason='needs the extra "geo"')

LABELS = LabelSet(names=("dark", "bright"), colours=((10, 20, 30), (200, 100, 0)))
TRANSFORM = rasterio.Affine(0.5, 0.1, 399960.0, -0.1, -0.5, 5700000.0)
TILING = Tiling(tile=(64, 96), overlap=0, stride=32)


@pytest.fixture(scope="module")
def model():
    return bright_network(contrast=3)


def write_tiff(path, height=100, width=130, bands=3, dtype="uint8", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (bands, height, width), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crs": "EPSG:32633", "transform": TRANSFORM} | options
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=dtype, **options
    ) as file:
        file.write(pixels.astype(dtype))
    return pixels


def predicted(model, folder, **options):
    images = find_images(str(folder / "*.tif"), folder / "out")
    options = {"tiling": TILING} | options
    return predict.predict(model, LABELS, images, folder / "out", **options)


def test_results_have_the_georeferencing_of_the_image(model, tmp_path):
    pixels = write_tiff(tmp_path / "a.tif", bands=4, photometric="minisblack")  # Not an alpha band.
    assert predicted(model, tmp_path, probabilities=True) == []
    bright = pixels[0] > 127
    for part in ("labels", "overlays", "probabilities"):
        with rasterio.open(tmp_path / "out" / part / "a.tif") as file:
            assert file.crs.to_epsg() == 32633 and file.transform == TRANSFORM
            assert file.shape == (100, 130)
            assert file.block_shapes[0] == (256, 256)
            values = file.read()
            if part == "labels":
                assert file.dtypes == ("uint8",)
                np.testing.assert_array_equal(values[0], bright)
                assert [file.colormap(1)[index] for index in (0, 1, 255)] == [
                    (10, 20, 30, 255), (200, 100, 0, 255), (224, 224, 192, 0),
                ]  # fmt: skip
            elif part == "overlays":
                expected = np.where(bright, 200, 10) * 0.5 + pixels[0] * 0.5
                np.testing.assert_allclose(values[0], expected, atol=0.5)
            else:
                assert file.descriptions == LABELS.names and file.dtypes[0] == "float32"
                odds = np.exp(-3 * (pixels[0] / 127.5 - 1))
                np.testing.assert_allclose(values[1], 1 / (1 + odds), atol=1e-5)
    with Image.open(tmp_path / "out" / "labels" / "a.tif") as mask:
        assert mask.mode == "P"
    assert (tmp_path / "out" / "legend.png").is_file()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tiffs_with_control_points_or_without_georeferencing_are_predicted(model, tmp_path):
    pixels = write_tiff(tmp_path / "a.tif", crs=None, transform=None)
    points = [
        rasterio.control.GroundControlPoint(row, column, 10 + column / 9, 50 - row / 9)
        for row, column in ((0, 0), (0, 130), (100, 0), (100, 130))
    ]
    write_tiff(tmp_path / "b.tif", crs="EPSG:4326", transform=None, gcps=points)
    write_tiff(tmp_path / "c.tif", crs=rasterio.CRS(), transform=None, gcps=points)
    assert predicted(model, tmp_path, tiling=None) == []
    with rasterio.open(tmp_path / "out" / "labels" / "a.tif") as file:
        assert file.crs is None and file.transform.is_identity
        np.testing.assert_array_equal(file.read(1), pixels[0] > 127)
    for name, epsg in (("b", 4326), ("c", None)):
        with rasterio.open(tmp_path / "out" / "labels" / f"{name}.tif") as file:
            found, crs = file.gcps
            assert (crs and crs.to_epsg()) == epsg
            assert [(point.row, point.col, point.x) for point in found] == [
                (point.row, point.col, point.x) for point in points
            ]


@pytest.mark.parametrize("kind", ["value", "alpha", "mask"])
def test_results_have_no_data_where_the_image_has_none(model, tmp_path, kind):
    path = tmp_path / "a.tif"
    if kind == "value":
        pixels = write_tiff(path, nodata=0)
        no_data = (pixels == 0).all(0)
        # A pixel that is 0 in one band only has a colour.
        assert (pixels == 0).any()
    elif kind == "alpha":
        pixels = write_tiff(path, bands=4, alpha="unassociated")
        no_data = pixels[3] == 0
    else:
        pixels = write_tiff(path)
        no_data = pixels[1] < 50
    if kind != "alpha":
        no_data[60:, 90:] = True
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            if kind == "mask":
                file.write_mask(~no_data)
            else:
                pixels[:, no_data] = 0
                file.write(pixels)
    assert no_data.any() and not no_data.all()
    assert predicted(model, tmp_path, probabilities=True) == []
    with rasterio.open(tmp_path / "out" / "labels" / "a.tif") as file:
        assert file.nodata == 255
        np.testing.assert_array_equal(file.read(1), np.where(no_data, 255, pixels[0] > 127))
    with rasterio.open(tmp_path / "out" / "probabilities" / "a.tif") as file:
        assert np.isnan(file.nodata)
        np.testing.assert_array_equal(np.isnan(file.read(2)), no_data)
    with rasterio.open(tmp_path / "out" / "overlays" / "a.tif") as file:
        np.testing.assert_array_equal(file.read()[:, no_data], pixels[:3, no_data])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_tag_for_points_and_rational_polynomials_are_kept(model, tmp_path):
    polynomials = [[1.0] + [0.25] * 19, [1.0] + [0.0] * 19]
    rpcs = rasterio.rpc.RPC(
        *[100.0, 500.0, 50.0, 1.0, polynomials[1], polynomials[0], 50.0, 60.0, 10.0, 1.0],
        *[polynomials[1], polynomials[0], 65.0, 70.0],
        err_bias=2.0,
        err_rand=3.0,
    )
    write_tiff(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    write_tiff(tmp_path / "b.tif", crs=None, transform=None, rpcs=rpcs)
    assert predicted(model, tmp_path) == []
    for part in ("labels", "overlays"):
        with rasterio.open(tmp_path / "out" / part / "a.tif") as file:
            assert file.tags()["AREA_OR_POINT"] == "Point" and file.transform == TRANSFORM
        with rasterio.open(tmp_path / "out" / part / "b.tif") as file:
            assert file.rpcs.to_dict() == rpcs.to_dict()


def test_a_tiff_that_cannot_be_read_is_named_and_leaves_no_results(model, tmp_path):
    write_tiff(tmp_path / "a.tif", bands=1)
    write_tiff(tmp_path / "b.tif", dtype="uint16")
    write_tiff(tmp_path / "c.tif", height=600, width=600, compress="deflate")
    whole = (tmp_path / "c.tif").read_bytes()
    (tmp_path / "c.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.tif").write_bytes(b"II*\0 and nothing more")
    (tmp_path / "e.tif").write_bytes(b"no TIFF")
    write_tiff(tmp_path / "e_wrong_name.tif", crs='LOCAL_CS["NAME",UNIT["metre",1]]')
    whole = (tmp_path / "e_wrong_name.tif").read_bytes()
    (tmp_path / "e_wrong_name.tif").write_bytes(whole.replace(b"NAME", b"N\xe9\xe9E"))
    write_tiff(tmp_path / "f.tif")
    failures = predicted(model, tmp_path)
    for failure, name, reason in zip(
        failures,
        ("a.tif", "b.tif", "c.tif", "d.tif", "e.tif", "e_wrong_name.tif"),
        ("uint8", "uint16, uint16", "damaged", "cannot be read", "", "'utf-8' codec"),
        strict=True,
    ):
        assert failure.startswith(f"{tmp_path / name}: ") and reason in failure
    written = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written == ["f.tif", "f.tif", "legend.png"]


def test_without_rasterio_a_tiff_is_skipped_and_the_extra_is_named(model, tmp_path, monkeypatch):
    write_tiff(tmp_path / "a.tif")
    write_tiff(tmp_path / "b.tif")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    failures = predicted(model, tmp_path)
    assert [failure.partition(": ")[0] for failure in failures] == [
        str(tmp_path / "a.tif"), str(tmp_path / "b.tif"),
    ]  # fmt: skip
    assert all('"geo"' in failure for failure in failures)


def test_a_tiff_cannot_be_submitted(model, tmp_path):
    write_tiff(tmp_path / "a.tif")
    images = {"a": tmp_path / "a.tif"}
    (failure,) = predict.predict(model, VOC, images, None, submission=tmp_path / "upload")
    assert failure.startswith(f"{tmp_path / 'a.tif'}: `--submission`")


def test_a_window_of_an_image_equals_that_of_an_array(tmp_path):
    pixels = np.moveaxis(write_tiff(tmp_path / "a.tif"), 0, -1)
    with open_scene(tmp_path / "a.tif") as image:
        assert image.shape == pixels.shape
        for place in ((slice(0, 100), slice(0, 130)), (slice(90, 100), slice(33, 34))):
            np.testing.assert_array_equal(image[place], pixels[place])


# The peak memory is VmHWM and not `ru_maxrss`, which a process inherits from its parent.
MEASURE = """
import re
import sys
from pathlib import Path

import keras
import rasterio
from rasterio.windows import Window
import numpy as np

from kseg import predict
from kseg.data.datasets import LabelSet
from kseg.inference.tiles import Tiling
from kseg.layers import ImageNormalization
from kseg.models import Segmenter

folder, classes = Path(sys.argv[1]), 8
images = keras.Input((None, None, 3))
network = keras.layers.Conv2D(classes, 1)(ImageNormalization("tf")(images))
model = Segmenter(images, network)
labels = LabelSet(
    names=tuple(map(str, range(classes))), colours=tuple((i, i, i) for i in range(classes))
)
noise = np.random.default_rng(0).integers(0, 256, (3, 16, 32), np.uint8)
noise = np.kron(noise, np.ones((1, 16, 16), np.uint8))
tiling = Tiling(tile=(512, 512), overlap=64, stride=32)
for height, width in ((2000, 3000), (4000, 6000)):
    path = folder / f"{height}.tif"
    with rasterio.Env(GDAL_CACHEMAX=8_000_000), rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8",
        tiled=True, blockxsize=256, blockysize=256, interleave="pixel",
    ) as file:
        for row in range(0, height, 256):
            for column in range(0, width, 512):
                part = noise[:, : height - row, : width - column]
                file.write(part, window=Window(column, row, part.shape[2], part.shape[1]))
    assert predict.predict(model, labels, {path.stem: path}, folder / "out", tiling=tiling) == []
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_image(tmp_path):
    """The larger image has four times the pixels: 54 MB more, and 576 MB more of scores."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    assert peaks[1] - peaks[0] < 45, f"MB for the smaller and the larger image: {peaks}"
