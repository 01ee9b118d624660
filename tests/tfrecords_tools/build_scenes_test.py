"""Scenes that are cut into tiles, with masks as rasters and vector files."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import manifests, records, scenes
from kseg.data.scene_bands import SceneBands
from kseg.data.vector_files import load_fiona
from kseg.errors import UserError
from tests import scene_files
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_scenes, scene_flags, scene_polygons, scene_stretch, staging
from tfrecords_tools.scene_tiles import TileRules
from tfrecords_tools.scene_vectors import VectorFile

HEIGHT, WIDTH = 100, 140


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "classes.txt").write_text("ground\nroad\nwater\n")
    return tmp_path


def build(raw, labels, **changes):
    arguments = {"bands": (4, 3, 2), "limits": ((0, 5000),) * 3, "tile": (64,), "overlap": 16}
    arguments |= {"workers": 1, **changes}
    return build_scenes.build(
        raw / "scenes", raw / labels, raw / "classes.txt", raw / "out", **arguments
    )


def put_together(raw, split="train", size=(HEIGHT, WIDTH)):
    """Returns the labels and the image of the only scene of a split, from its tiles."""
    labels = np.full(size, 99, np.uint8)
    image = np.zeros((*size, 3), np.uint8)
    manifest = manifests.read_manifest(raw / "out", split)
    paths = [str(path) for path in manifests.shard_paths(raw / "out", manifest)]
    for example in map(records.decode_example, tf.data.TFRecordDataset(paths)):
        _, row, column = example["filename"].numpy().decode().rsplit("_", 2)
        tile = example["label"].numpy()
        place = np.s_[int(row) : int(row) + len(tile), int(column) : int(column) + tile.shape[1]]
        labels[place], image[place] = tile, example["image"].numpy()
    return labels, image


@pytest.mark.parametrize("crs", [scene_files.CRS, "EPSG:4326"])
def test_polygons_are_burned_in_any_projection_and_the_later_one_is_seen(raw, crs):
    pixels = scene_files.values()
    pixels[:, :, :9] = 0
    scene_files.write(raw / "scenes" / "a.tif", pixels, nodata=0)
    shapes = [
        (scene_files.box(0, 40, WIDTH, 60, crs), {"kind": "road"}),
        (scene_files.box(100, 0, 120, HEIGHT, crs), {"kind": "2"}),
        (scene_files.box(20, 80, 30, 90, crs), {"kind": "ignore"}),
    ]
    scene_files.write_geojson(raw / "roads.geojson", shapes, crs)
    (manifest,) = build(raw, "roads.geojson", class_field="kind")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[40:60] = 1
    expected[:, 100:120] = 2
    expected[80:90, 20:30] = 255
    expected[:, :9] = 255
    labels, image = put_together(raw)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(image[..., 0], pixels[3] / 5000 * 255, atol=0.51)
    np.testing.assert_allclose(image[..., 2], pixels[1] / 5000 * 255, atol=0.51)
    assert manifest.scene_bands == SceneBands(
        bands=(4, 3, 2), limits=((0, 5000),) * 3, dtype="uint16"
    )
    assert manifests.read_manifest(raw / "out", "train").scene_bands == manifest.scene_bands


def test_a_mask_on_the_grid_of_its_scene_is_read(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    ids = np.random.default_rng(1).integers(0, 3, (1, HEIGHT, WIDTH))
    ids[0, :5] = 255
    for dtype in ("uint8", "uint16", "int32"):
        scene_files.write(raw / "masks" / "a.tif", ids.astype(dtype), nodata=255)
        build(raw, "masks")
        np.testing.assert_array_equal(put_together(raw)[0], ids[0])


def test_nodata_of_a_mask_of_int8_is_ignored(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    ids = np.random.default_rng(1).integers(-1, 3, (1, HEIGHT, WIDTH)).astype(np.int8)
    scene_files.write(raw / "masks" / "a.tif", ids, nodata=-1)
    build(raw, "masks")
    np.testing.assert_array_equal(put_together(raw)[0], ids[0].astype(np.uint8))
    scene_files.write(raw / "masks" / "a.tif", ids)
    with pytest.raises(UserError, match=r"masks/a\.tif.*-1"):
        build(raw, "masks")


def test_a_scene_with_brackets_in_its_name_is_a_file_and_no_glob(raw):
    path = raw / "scenes" / "a[1].tif"
    scene_files.write(path, scene_files.values())
    assert build_scenes.find_scenes(path, None, []) == {"a[1]": path}
    assert build_scenes.find_scenes(raw / "scenes" / "*[[]1].tif", None, []) == {"a[1]": path}


def test_a_vector_file_that_is_gone_is_named_once(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    path = raw / "roads.geojson"
    scene_files.write_geojson(path, [(scene_files.box(0, 0, 9, 9), {"kind": "road"})])
    label_set = build_scenes.lists.read_classes(raw / "classes.txt")[0]
    vectors = VectorFile(path, label_set, class_field="kind")
    path.unlink()
    with (
        scenes.open_tiff(raw / "scenes" / "a.tif") as scene,
        pytest.raises(UserError) as caught,
        vectors.on(scene),
    ):
        pass
    assert str(caught.value).count("roads.geojson: The ") == 1


def test_the_later_polygon_is_seen_whatever_its_id(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    shapes = [
        (scene_files.box(0, 0, 50, 50), {"kind": "road", "id": 9}),
        (scene_files.box(0, 0, 50, 50), {"kind": "water", "id": 3}),
    ]
    scene_files.write_geojson(raw / "areas.geojson", shapes)
    build(raw, "areas.geojson", class_field="kind")
    assert np.unique(put_together(raw)[0]).tolist() == [0, 2]


def test_a_flatgeobuf_of_several_classes_is_noted(raw, capsys):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    schema = {"geometry": "Polygon", "properties": {"kind": "str"}}
    for kinds, notes in ((("road",), 0), (("road", "water"), 1)):
        path = raw / f"{len(kinds)}.fgb"
        with load_fiona("the tests").open(
            path, "w", driver="FlatGeobuf", crs=scene_files.CRS, schema=schema
        ) as file:
            for kind in kinds:
                geometry = scene_files.box(0, 0, 9, 9)
                file.write({"geometry": geometry, "properties": {"kind": kind}})
        build(raw, path.name, class_field="kind")
        assert capsys.readouterr().out.count("FlatGeobuf") == notes


@pytest.mark.parametrize(
    "reach", [(-180, -90, 180, 90), (-10, 0, 40, 85), (-179, 47.0, 9.0016, 80)]
)
def test_polygons_that_reach_beyond_the_projection_of_the_scene_are_seen(raw, reach):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    left, bottom, right, top = reach
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    shapes = [({"type": "Polygon", "coordinates": [corners]}, {"kind": "road"})]
    scene_files.write_geojson(raw / "land.geojson", shapes, "EPSG:4326")
    build(raw, "land.geojson", class_field="kind")
    labels = put_together(raw)[0]
    if right > 10:
        assert (labels == 1).all()
    else:
        # The meridian crosses the scene, whose first column lies at 9 degrees.
        assert labels[50, 0] == 1 and labels[50, -1] == 0


def test_a_clipped_ring_keeps_its_shape_inside():
    ring = [(0, 0), (10, 0), (10, 10), (5, 2), (0, 10), (0, 0)]
    hole, gone = [(1, 1), (3, 1), (3, 2), (1, 1)], [(9, 1), (9.5, 1), (9.5, 2), (9, 1)]
    (outline, kept) = scene_polygons.clip([ring, hole, gone], (-1, -1, 6, 4))
    assert kept == hole and outline[0] == outline[-1]
    assert {(0, 0), (6, 0), (5, 2), (0, 4)} <= set(outline)
    assert all(x <= 6 and y <= 4 for x, y in outline)
    assert scene_polygons.clip([ring], (20, 20, 30, 30)) == []
    assert scene_polygons.clip([ring], (1, -1, 2, 0)) != []
    assert scene_polygons.clip([ring[:-1]], (-1, -1, 11, 11)) == [ring]


def test_collections_of_polygons_and_empty_geometries_are_read(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    boxes = [scene_files.box(0, 0, 10, 10), scene_files.box(20, 0, 30, 10)]
    several = {"type": "MultiPolygon", "coordinates": [boxes[1]["coordinates"]]}
    shapes = [
        ({"type": "GeometryCollection", "geometries": [boxes[0], several]}, {"kind": 1}),
        ({"type": "GeometryCollection", "geometries": []}, {"kind": 1}),
        ({"type": "Polygon", "coordinates": []}, {"kind": 1}),
    ]
    scene_files.write_geojson(raw / "roads.geojson", shapes)
    build(raw, "roads.geojson", class_field="kind")
    assert (put_together(raw)[0] == 1).sum() == 200
    line = {"type": "LineString", "coordinates": [(5e5, 5.4e6), (5.1e5, 5.3e6)]}
    shapes[1][0]["geometries"].append(line)
    scene_files.write_geojson(raw / "roads.geojson", shapes)
    with pytest.raises(UserError, match=r"roads\.geojson.*LineString"):
        build(raw, "roads.geojson", class_field="kind")


def write_mask(path, ids, palette=None, **options):
    scene_files.write(path, ids[np.newaxis], **options)
    if palette is not None:
        with scene_files.rasterio.open(path, "r+") as file:
            file.write_colormap(1, {index: (*colour, 255) for index, colour in palette.items()})


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_masks_that_contradict_each_other_are_refused(raw, on_error):
    ids = np.random.default_rng(1).integers(0, 2, (HEIGHT, WIDTH), np.uint8)
    black_red, red_black = {0: (0, 0, 0), 1: (255, 0, 0)}, {0: (255, 0, 0), 1: (0, 0, 0)}
    for name in "ab":
        scene_files.write(raw / "scenes" / f"{name}.tif", scene_files.values())
    masks = raw / "masks"
    for first, second in (
        ({"palette": black_red}, {"ids": 1 - ids, "palette": red_black}),
        ({"nbits": 1}, {"ids": ids * 255}),
        ({}, {"ids": ids * 255}),
    ):
        photometric = {} if "nbits" in first else {"photometric": None}
        write_mask(masks / "a.tif", **{"ids": ids} | photometric | first)
        write_mask(masks / "b.tif", photometric=None, **second)
        with pytest.raises(UserError, match=r"masks/b\.tif") as caught:
            build(raw, "masks", on_error=on_error)
        assert len(folders.problems_of(caught.value)) == 1
        (manifest,) = build(raw, "masks", masks_are="ids")
        assert not manifest.skipped
    # 255 is nodata there, and ignored on purpose.
    write_mask(masks / "b.tif", ids * 255, nodata=255)
    build(raw, "masks")


def test_a_palette_that_shows_other_ids_is_refused(raw):
    ids = np.random.default_rng(1).integers(0, 2, (HEIGHT, WIDTH), np.uint8)
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    greys = {0: (0, 0, 0), 1: (2, 2, 2)}
    write_mask(raw / "masks" / "a.tif", ids, greys, photometric=None)
    with pytest.raises(UserError, match=r"masks/a\.tif"):
        build(raw, "masks")
    build(raw, "masks", masks_are="ids")
    np.testing.assert_array_equal(put_together(raw)[0], ids)


def test_tiles_of_one_mask_do_not_contradict_each_other(raw):
    """One has background and pixels to ignore, the others have background and road."""
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    ids = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    ids[0, :10, :10], ids[0, -10:, -10:] = 255, 1
    scene_files.write(raw / "masks" / "a.tif", ids)
    build(raw, "masks", overlap=0)
    np.testing.assert_array_equal(put_together(raw)[0], ids[0])


def test_a_lossy_mask_is_refused(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    ids = np.random.default_rng(1).integers(0, 3, (1, HEIGHT, WIDTH), np.uint8)
    scene_files.write(raw / "masks" / "a.tif", ids, compress="jpeg")
    with pytest.raises(UserError, match=r"masks/a\.tif.*JPEG"):
        build(raw, "masks")


def test_greys_of_few_bits_and_of_white_as_0_are_those_that_a_person_sees(raw):
    (raw / "classes.txt").write_text("ground 0 0 0\nroad 255 255 255\n")
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    road = np.random.default_rng(1).integers(0, 2, (1, HEIGHT, WIDTH), np.uint8)
    for stored, options in (
        (road, {"nbits": 1}),
        (1 - road, {"nbits": 1, "photometric": "miniswhite"}),
        (3 * road, {"nbits": 2}),
        (255 - 255 * road, {"photometric": "miniswhite"}),
    ):
        scene_files.write(raw / "masks" / "a.tif", stored, **options)
        build(raw, "masks")
        np.testing.assert_array_equal(put_together(raw)[0], road[0])


def test_names_and_endings_of_masks_match_in_any_composition_and_case(raw):
    scene_files.write(raw / "scenes" / "cafe\u0301.tif", scene_files.values())
    ids = np.ones((1, HEIGHT, WIDTH), np.uint8)
    scene_files.write(raw / "masks" / "caf\u00e9_mask.tif", ids)
    build(raw, "masks", label_ending="_Mask.TIF")
    assert (put_together(raw)[0] == 1).all()
    (raw / "masks" / "caf\u00e9_mask.tif").rename(raw / "masks" / "caf\u00e9.tif")
    build(raw, "masks")
    with pytest.raises(UserError, match="`label_ending`.*_mask"):
        build(raw, "masks", label_ending="_mask")


def test_hidden_files_are_neither_scenes_nor_labels(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    scene_files.write(raw / "masks" / "a.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    for path in (raw / "scenes" / "._a.tif", raw / "masks" / "._a.tif", raw / "masks" / "._a.shp"):
        path.write_bytes(b"Mac OS X")
    (manifest,) = build(raw, "masks")
    assert not manifest.skipped


def test_a_mask_of_colours_is_read_by_the_colours_of_the_classes(raw):
    (raw / "classes.txt").write_text("ground 0 0 0\nroad 255 255 255\nwater 0 0 255\n")
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    ids = np.random.default_rng(1).integers(0, 3, (HEIGHT, WIDTH))
    colours = np.array([(0, 0, 0), (255, 255, 255), (0, 0, 255)], np.uint8)
    scene_files.write(raw / "masks" / "a.tif", np.moveaxis(colours[ids], -1, 0))
    assert [manifest.masks_are for manifest in build(raw, "masks")] == ["colours"]
    np.testing.assert_array_equal(put_together(raw)[0], ids)
    grey = np.where(ids == 1, 255, 0).astype(np.uint8)
    scene_files.write(raw / "masks" / "a.tif", grey[np.newaxis])
    build(raw, "masks")
    np.testing.assert_array_equal(put_together(raw)[0], ids == 1)
    scene_files.write(raw / "masks" / "a.tif", np.full((1, HEIGHT, WIDTH), 7, np.uint8))
    with pytest.raises(UserError, match=r"masks/a\.tif.* 7 7 7"):
        build(raw, "masks")


@pytest.mark.parametrize("masks_are", ["colours", "indices"])
def test_masks_cannot_be_what_the_classes_file_does_not_give(raw, masks_are):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    scene_files.write(raw / "masks" / "a.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(UserError, match=f"`masks_are.*{masks_are}"):
        build(raw, "masks", masks_are=masks_are)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"crs": "EPSG:32633"}, "EPSG:32633"),
        ({"transform": scene_files.TRANSFORM * scene_files.rasterio.Affine.translation(0.5, 0)},
         "grid"),
        ({"nodata": 0}, "`--mask_nodata"),
    ],
)  # fmt: skip
def test_a_mask_that_is_not_on_the_grid_or_unclear_is_refused_by_name(raw, options, reason):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    scene_files.write(raw / "masks" / "a.tif", np.zeros((1, HEIGHT, WIDTH), np.uint8), **options)
    with pytest.raises(UserError, match=rf"masks/a\.tif.*{reason}"):
        build(raw, "masks")
    assert folders.contents(raw / "out") == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("bands", (1, 2)), ("bands", (0, 1, 2)), ("bands", ()), ("limits", ((5, 5),) * 3),
     ("limits", ((0, 9),)), ("mask_nodata", "skip")],
)  # fmt: skip
def test_an_argument_that_breaks_its_rule_is_named_before_a_file_is_read(raw, name, value):
    with pytest.raises(UserError, match=f"`{name}`"):
        build(raw, "no folder", **{name: value})


def test_a_nodata_value_that_is_a_class_counts_as_the_flag_says(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    ids = np.random.default_rng(1).integers(0, 2, (1, HEIGHT, WIDTH), np.uint8)
    scene_files.write(raw / "masks" / "a.tif", ids, nodata=0)
    build(raw, "masks", mask_nodata="class")
    np.testing.assert_array_equal(put_together(raw)[0], ids[0])
    build(raw, "masks", mask_nodata="ignore")
    np.testing.assert_array_equal(put_together(raw)[0], np.where(ids[0], 1, 255))


def test_every_problem_is_named_and_skip_leaves_out_these_scenes_only(raw):
    for name in "abcde":
        scene_files.write(raw / "scenes" / f"{name}.tif", scene_files.values())
        scene_files.write(raw / "masks" / f"{name}.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    (raw / "masks" / "b.tif").unlink()
    scene_files.write(raw / "masks" / "c.tif", np.ones((1, HEIGHT, WIDTH + 1), np.uint8))
    scene_files.write(raw / "masks" / "d.tif", np.full((1, HEIGHT, WIDTH), 9, np.uint8))
    scene_files.write(raw / "scenes" / "e.tif", scene_files.values(dtype="float32"))
    (raw / "scenes" / "f.tif").write_bytes(b"II*\0 and nothing else")
    scene_files.write(raw / "masks" / "g.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(UserError) as caught:
        build(raw, "masks")
    expected = [
        ("scenes/b.tif: ", "without labels"),
        ("masks/c.tif: ", "141 x 100"),
        ("scenes/e.tif: ", "float32"),
        ("scenes/f.tif: ",),
        ("masks/g.tif: ", "without a scene"),
    ]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    (manifest,) = build(raw, "masks", on_error="skip")
    names = set(shards.labels(raw / "out", "train"))
    assert {name.split("_")[0] for name in names} == {"a"}
    assert any("masks/d.tif" in line and "9" in line for line in manifest.skipped)
    assert len(manifest.skipped) == 6


def test_a_scene_with_a_problem_in_its_last_tile_is_left_out_whole(raw, capsys):
    pixels = scene_files.values()
    pixels[:, :64, :64] = 0
    ids = np.ones((1, HEIGHT, WIDTH), np.uint8)
    for name in "abcd":
        scene_files.write(raw / "scenes" / f"{name}.tif", pixels, nodata=0)
        if name in "bd":
            ids[0, -1, -1] = 9
        scene_files.write(raw / "masks" / f"{name}.tif", ids)
        ids[0, -1, -1] = 1
    for options in ({}, {"val_fraction": 0.5}):
        with pytest.raises(UserError) as caught:
            build(raw, "masks", **options)
        expected = [("masks/b.tif: ", "9"), ("masks/d.tif: ", "9")]
        folders.assert_each_in_one(expected, folders.problems_of(caught.value))
        assert folders.contents(raw / "out") == {}
    capsys.readouterr()
    build(raw, "masks", on_error="skip")
    assert {name[0] for name in shards.labels(raw / "out", "train")} == {"a", "c"}
    assert "2 tiles left out: without a labelled pixel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shapes", "crs", "options", "reason"),
    [
        ([({"type": "LineString", "coordinates": [(5e5, 5.4e6), (5.1e5, 5.3e6)]}, {"kind": 1})],
         scene_files.CRS, {}, "LineString"),
        ([(scene_files.box(0, 0, 9, 9), {"kind": "railway"})], scene_files.CRS, {}, "'railway'"),
        ([(scene_files.box(0, 0, 9, 9), {"kind": None})], scene_files.CRS, {}, "None"),
        ([(scene_files.box(0, 0, 9, 9), {"kind": 1})], scene_files.CRS,
         {"class_field": "type"}, "'type'.*kind"),
        ([(scene_files.box(0, 0, 9, 9), {"kind": 1})], scene_files.CRS,
         {"class_field": None}, "`--class_field`"),
        # Metres in a GeoJSON that names no projection are read as degrees.
        ([(scene_files.box(0, 0, 9, 9), {"kind": 1})], "EPSG:4326", {}, "degrees"),
        ([(scene_files.box(900, 0, 909, 9), {"kind": 1})], scene_files.CRS, {}, "no polygon"),
        ([], scene_files.CRS, {}, "no polygon|no field"),
    ],
)  # fmt: skip
def test_a_vector_file_that_does_not_fit_is_an_error(raw, shapes, crs, options, reason):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    scene_files.write_geojson(raw / "roads.geojson", shapes, crs)
    with pytest.raises(UserError, match=reason):
        build(raw, "roads.geojson", **{"class_field": "kind"} | options)
    assert folders.contents(raw / "out") == {}


def test_a_scene_without_a_projection_cannot_have_a_vector_file(raw):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values(), crs=None)
    shapes = [(scene_files.box(0, 0, 9, 9), {"kind": 1})]
    scene_files.write_geojson(raw / "roads.geojson", shapes)
    with pytest.raises(UserError, match=r"scenes/a\.tif.*projection"):
        build(raw, "roads.geojson", class_field="kind")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_the_stretch_is_that_of_the_percentiles_of_all_scenes(raw, dtype, monkeypatch):
    monkeypatch.setattr(scene_stretch, "PIXELS_PER_WINDOW", 1000)
    paths, seen, bad = {}, [], {}
    for name, seed in (("a", 0), ("b", 1)):
        pixels = scene_files.values(dtype=dtype, seed=seed, height=100 + seed)
        pixels -= np.array(40 if dtype == "int16" else 0, dtype)
        pixels[:, :20] = 0
        paths[name] = raw / f"{name}.tif"
        scene_files.write(paths[name], pixels, nodata=0)
        seen.append(pixels[:, (pixels[[3, 2, 1]] != 0).any(0)])
    seen = np.concatenate(seen, axis=1)[[3, 2, 1]]
    for stretch, q in (((2, 98), (2, 98)), ((0, 100), (0, 100))):
        bands = scene_stretch.measure(paths, (4, 3, 2), dtype, bad, stretch=stretch)
        np.testing.assert_allclose(bands.limits, np.percentile(seen, q, axis=1).T)
        assert (bands.dtype, bands.bands) == (dtype, (4, 3, 2))
    # A damaged scene does not count, with no window of it.
    scene_files.write(raw / "c.tif", scene_files.values(dtype=dtype, seed=2))
    truncate(raw / "c.tif", 0.5)
    bands = scene_stretch.measure(
        {"c": raw / "c.tif", **paths}, (4, 3, 2), dtype, bad, stretch=(0, 100)
    )
    np.testing.assert_allclose(bands.limits, np.percentile(seen, (0, 100), axis=1).T)
    assert list(bad) == ["c"] and bad["c"].startswith(f"{raw / 'c.tif'}: ")


def truncate(path, fraction):
    contents = path.read_bytes()
    path.write_bytes(contents[: int(fraction * len(contents))])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stretch": (2, 98), "limits": None},
        {"stretch": (2, 98), "limits": None, "val_fraction": 0.4},
    ],
    ids=["limits", "stretch", "held_out"],
)
def test_a_damaged_scene_is_named_or_left_out(raw, options):
    for seed, name in enumerate("abcde"):
        scene_files.write(raw / "scenes" / f"{name}.tif", scene_files.values(seed=seed))
        scene_files.write(raw / "masks" / f"{name}.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    truncate(raw / "scenes" / "b.tif", 0.5)
    with pytest.raises(UserError) as caught:
        build(raw, "masks", **options)
    expected = [("scenes/b.tif: ", "damaged")]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    assert folders.contents(raw / "out") == {}
    built = build(raw, "masks", on_error="skip", **options)
    for manifest in built:
        folders.assert_each_in_one(expected, manifest.skipped)
    names = [name for m in built for name in shards.labels(raw / "out", m.split)]
    assert {name[0] for name in names} == set("acde")
    for name in "acde":
        truncate(raw / "scenes" / f"{name}.tif", 0.5)
    with pytest.raises(UserError) as caught:
        build(raw, "masks", on_error="skip", **options)
    folders.assert_each_in_one(
        [(f"scenes/{name}.tif: ", "damaged") for name in "abcde"],
        folders.problems_of(caught.value),
    )


def test_a_scene_with_a_damaged_alpha_band_is_left_out(raw):
    for name in "ab":
        path = raw / "scenes" / f"{name}.tif"
        pixels = scene_files.values(dtype="uint8")
        pixels[3] = 255
        scene_files.write(path, pixels, photometric=None, interleave="band")
        scene_files.write(raw / "masks" / f"{name}.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    truncate(raw / "scenes" / "b.tif", 0.9)
    (manifest,) = build(raw, "masks", bands=(1, 2, 3), limits=None, on_error="skip")
    folders.assert_each_in_one([("scenes/b.tif: ", "damaged")], manifest.skipped)
    assert {name[0] for name in shards.labels(raw / "out", "train")} == {"a"}


def test_bands_of_8_bits_stay_without_a_stretch_and_16_bits_need_one(raw):
    path = raw / "a.tif"
    scene_files.write(path, scene_files.values(dtype="uint8"))
    assert scene_stretch.measure({"a": path}, (3, 2, 1), "uint8", {}).limits == ((0, 255),) * 3
    scene_files.write(path, scene_files.values())
    with pytest.raises(UserError, match="`--stretch`"):
        scene_stretch.measure({"a": path}, (3, 2, 1), "uint16", {})
    scene_files.write(path, np.full((3, 9, 9), 7, np.uint16))
    with pytest.raises(UserError, match="Band 3"):
        scene_stretch.measure({"a": path}, (3, 2, 1), "uint16", {}, stretch=(2, 98))


def test_near_infrared_that_gdal_marks_as_alpha_is_no_transparency(raw, capsys):
    pixels = scene_files.values(dtype="uint8")
    pixels[3, :30] = 0
    scene_files.write(raw / "scenes" / "a.tif", pixels, photometric=None)
    scene_files.write(raw / "masks" / "a.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    for bands in ((1, 2, 3), (4, 2, 1)):
        build(raw, "masks", bands=bands, limits=None)
        labels, image = put_together(raw)
        assert (labels == 1).all()
        np.testing.assert_array_equal(image[..., 0], pixels[bands[0] - 1])
    assert "band 4" in capsys.readouterr().out
    pixels[3] = 255
    pixels[3, :30] = 0
    scene_files.write(raw / "scenes" / "a.tif", pixels, photometric=None)
    build(raw, "masks", bands=(1, 2, 3), limits=None)
    np.testing.assert_array_equal(put_together(raw)[0] == 255, pixels[3] == 0)


def test_tiles_cover_the_scene_and_share_the_overlap():
    rules = TileRules(tile=(64, 32), overlap=16)
    seen = np.zeros((150, 90), int)
    for rows, columns in rules.places(150, 90):
        assert rows.stop - rows.start == 64 and columns.stop - columns.start == 32
        seen[rows, columns] += 1
    assert seen.min() == 1
    assert sorted({rows.start for rows, _ in rules.places(150, 90)}) == [0, 48, 86]
    assert rules.places(20, 32) == [(slice(0, 20), slice(0, 32))]
    with pytest.raises(UserError, match="--overlap"):
        TileRules(tile=(64, 32), overlap=32)


def test_tiles_without_labels_are_dropped_and_those_of_background_thinned(raw, capsys):
    pixels = scene_files.values(height=320, width=320)
    pixels[:, :64] = 0
    scene_files.write(raw / "scenes" / "a.tif", pixels, nodata=0)
    shapes = [(scene_files.box(64, 64, 70, 70), {"kind": 1})]
    scene_files.write_geojson(raw / "roads.geojson", shapes)
    options = {"class_field": "kind", "overlap": 0}
    build(raw, "roads.geojson", **options)
    assert len(shards.labels(raw / "out", "train")) == 20
    assert "5 tiles left out" in capsys.readouterr().out
    build(raw, "roads.geojson", **options, keep_background=0)
    assert set(shards.labels(raw / "out", "train")) == {"a_00064_00064"}
    build(raw, "roads.geojson", **options, keep_background=0.5)
    half = set(shards.labels(raw / "out", "train"))
    assert 4 <= len(half) <= 16 and "a_00064_00064" in half
    build(raw, "roads.geojson", **options, keep_background=0.5)
    assert set(shards.labels(raw / "out", "train")) == half


def test_whole_scenes_are_held_out_and_no_file_is_left_behind(raw):
    for seed, name in enumerate("abcde"):
        scene_files.write(raw / "scenes" / f"{name}.tif", scene_files.values(seed=seed))
        scene_files.write(raw / "masks" / f"{name}.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))
    manifests = build(raw, "masks", val_fraction=0.4, seed=3, keep_background=0)
    assert [manifest.split for manifest in manifests] == ["train", "val"]
    scenes_of = {
        split: {name[0] for name in shards.labels(raw / "out", split)} for split in ("train", "val")
    }
    assert len(scenes_of["val"]) == 2 and scenes_of["train"] | scenes_of["val"] == set("abcde")
    assert not scenes_of["train"] & scenes_of["val"]
    assert all(not name.startswith(".") for name in folders.contents(raw / "out"))


def test_tiles_of_a_run_that_failed_are_kept_with_its_shards(raw, monkeypatch):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    scene_files.write(raw / "masks" / "a.tif", np.ones((1, HEIGHT, WIDTH), np.uint8))

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(staging.Staging, "commit", fail)
        with pytest.raises(UserError, match="disk full"):
            build(raw, "masks")
    out = raw / "out"
    finished = folders.modification_times(out.glob(".train.partial/*.tfrecord"))
    assert finished
    build(raw, "masks")
    assert folders.modification_times(out.glob("*.tfrecord")) == finished
    assert not list(out.glob(".*"))


def test_the_program_reads_its_flags(raw, capsys):
    scene_files.write(raw / "scenes" / "a.tif", scene_files.values())
    shapes = [(scene_files.box(0, 0, 50, 50), {"kind": 1})]
    scene_files.write_geojson(raw / "roads.geojson", shapes)
    values = shards.flag_values(
        scene_flags.define_flags,
        f"--scenes={raw / 'scenes' / '*.tif'}",
        f"--labels={raw / 'roads.geojson'}",
        f"--classes={raw / 'classes.txt'}",
        f"--output_dir={raw / 'out'}",
        "--class_field=kind",
        "--bands=3,2,1",
        "--stretch=min,max",
        "--tile=64,70",
        "--overlap=8",
        "--outside=water",
    )
    build_scenes.main(values)
    assert "written to" in capsys.readouterr().out
    labels, _ = put_together(raw)
    np.testing.assert_array_equal(np.unique(labels), [1, 2])


@pytest.mark.parametrize(
    ("parse", "texts", "flag"),
    [
        (scene_flags.parse_bands, ["1", "2"], "--bands"),
        (scene_flags.parse_bands, ["0", "1", "2"], "--bands"),
        (scene_flags.parse_stretch, ["98", "2"], "--stretch"),
        (scene_flags.parse_stretch, ["0", "3000"], "--limits"),
        (scene_flags.parse_limits, ["5", "5"], "--limits"),
        (scene_flags.parse_limits, ["1", "2", "3"], "--limits"),
    ],
)
def test_a_flag_that_breaks_its_rule_is_named(parse, texts, flag):
    with pytest.raises(UserError, match=flag):
        parse(texts)


def test_tiffs_that_gdal_reads_otherwise_than_viewers_show_them_are_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    picture = Image.fromarray(pixels)
    for orientation in (0, 1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(tmp_path / f"turned{orientation}.tif", exif=exif)
    picture.save(tmp_path / "pages.tif", save_all=True, append_images=[picture])
    Image.new("LAB", (12, 9)).save(tmp_path / "lab.tif")
    for name in ("turned6", "pages", "lab"):
        with (
            pytest.raises(UserError, match="A TIFF must"),
            scenes.open_scene(tmp_path / f"{name}.tif"),
        ):
            pass
    for name in ("turned0", "turned1"):
        with scenes.open_scene(tmp_path / f"{name}.tif") as scene:
            np.testing.assert_array_equal(scene[slice(0, 9), slice(0, 12)], pixels)
