"""COCO: its objects drawn into VOC's 21 classes, or into all 81 classes."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kseg.data.datasets import COCO, VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_coco, check_records, coco_values, summary

# Category ids in the JSON files of COCO.
PERSON, CAT, UMBRELLA, DOG = 1, 17, 28, 18
NAMES = {PERSON: "person", CAT: "cat", UMBRELLA: "umbrella", DOG: "dog"}
# COCO's other names for classes of VOC.
VOC_NAMES = {
    "airplane": "aeroplane",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}


def rectangle(left, top, right, bottom):
    """Returns a polygon with the pixels of columns left to right - 1, rows top to bottom - 1."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask):
    """Returns the lengths of runs down the columns, outside first: the definition of an RLE."""
    found, value = [0], False
    for pixel in mask.ravel(order="F"):
        if bool(pixel) != value:
            found.append(0)
            value = not value
        found[-1] += 1
    return found


def inside(found, shape):
    """Returns the mask of `runs`."""
    values = np.repeat(np.arange(len(found)) % 2, found)
    return values.reshape(shape, order="F").astype(bool)


def coco(root, annotations, sizes=((40, 50),), split="tiny", **changes):
    """Writes a folder in COCO's layout from annotations (image, category, segmentation, more)."""
    content = {
        "images": [
            {"id": 100 + k, "file_name": f"{k}.jpg", "height": size[0], "width": size[1]}
            for k, size in enumerate(sizes)
        ],
        "annotations": [
            {"id": k, "image_id": 100 + image, "category_id": category, "segmentation": shape}
            | dict(*more)
            for k, (image, category, shape, *more) in enumerate(annotations)
        ],
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
    } | changes
    for k, size in enumerate(sizes):
        folders.image(root / split / f"{k}.jpg", size=size[::-1], seed=k)
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return root


def build(root, out="out", **changes):
    arguments = {"splits": ["tiny"], "min_image_area": 0} | changes
    return build_coco.build(root, root / out, **arguments)[0]


def assert_problems(expected, caught):
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))


def only_label(root, **changes):
    build(root, **changes)
    return shards.labels(root / "out", "tiny")["0"]


@pytest.mark.parametrize("overlap", ["first", "ignore"])
def test_real_objects_are_drawn_where_pillow_draws_them(real_data, tmp_path, overlap):
    """Compares with another rasteriser, the definition of runs, and classes by name."""
    raw = real_data / "coco_tiny"
    manifest = build_coco.build(
        raw, tmp_path, splits=["train2017"], min_image_area=0, object_overlap=overlap
    )[0]
    assert manifest.label_set() == VOC
    assert check_records.check(tmp_path)[0].problems == []
    found = shards.labels(tmp_path, "train2017")
    assert len(found) == 80
    drawn, crowds = pillow(raw, overlap)
    assert crowds == 6
    same = sum((found[name] == ids).sum() for name, ids in drawn.items())
    pixels = sum(ids.size for ids in drawn.values())
    # The two rasterisers differ only on the outlines.
    assert same / pixels > 0.985
    for class_id in (*range(21), *[255] * (overlap == "ignore")):
        ours, theirs = (
            np.concatenate([labels[name].ravel() == class_id for name in drawn])
            for labels in (found, drawn)
        )
        union = (ours | theirs).sum()
        # Where several objects meet, 255 is mostly outline.
        assert (ours & theirs).sum() >= (0.6 if class_id == 255 else 0.85) * union, class_id


def pillow(raw, overlap):
    """Draws the JSON without the code under test.

    Returns:
        The label map of each name, and the number of RLEs.
    """
    content = json.loads((raw / "annotations" / "instances_train2017.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    labels = {k: np.zeros((v["height"], v["width"]), np.uint8) for k, v in images.items()}
    taken = {k: np.zeros(v.shape, bool) for k, v in labels.items()}
    crowds = 0
    for annotation in content["annotations"]:
        name, shape = names[annotation["category_id"]], annotation["segmentation"]
        name = VOC_NAMES.get(name, name)
        if isinstance(shape, dict):
            crowds += 1
        if name not in VOC.names:
            continue
        ids, seen = labels[annotation["image_id"]], taken[annotation["image_id"]]
        if isinstance(shape, dict):
            where = inside(shape["counts"], ids.shape)
        else:
            picture = Image.new("1", ids.shape[::-1])
            for polygon in shape:
                # Pillow's pixels are on the coordinates, COCO's between them.
                ImageDraw.Draw(picture).polygon([value - 0.5 for value in polygon], fill=1)
            where = np.asarray(picture)
        ids[where & ~seen] = VOC.names.index(name)
        if overlap == "ignore":
            ids[where & seen] = 255
        seen |= where
    return {images[k]["file_name"].removesuffix(".jpg"): ids for k, ids in labels.items()}, crowds


def test_rules_of_the_papers_on_real_images(real_data, tmp_path):
    def counts(out, **rules):
        raw = real_data / "coco_tiny"
        manifest = build_coco.build(raw, tmp_path / out, splits=["train2017"], **rules)[0]
        left_out = manifest.arguments["images_left_out"]["train2017"]
        return manifest.num_examples, sum(left_out.values())

    assert counts("ksac") == (64, 16)
    assert counts("vortex", min_object_area=1000) == (62, 18)
    assert counts("every", min_image_area=0) == (80, 0)
    assert counts("all", categories="all") == (79, 1)
    drawn = pillow(real_data / "coco_tiny", "first")[0]
    area = {name: (ids > 0).sum() for name, ids in drawn.items()}
    kept = shards.labels(tmp_path / "ksac", "train2017")
    assert min(area[name] for name in kept) > 900
    assert max(area[name] for name in area.keys() - kept) < 1100


def test_polygons_and_both_kinds_of_rle_are_drawn_alike(tmp_path):
    pycocotools_mask = pytest.importorskip("pycocotools.mask")
    expected = np.zeros((40, 50), bool)
    expected[5:20, 10:30] = True
    compressed = pycocotools_mask.encode(np.asfortranarray(expected.astype(np.uint8)))
    shapes = {
        "polygon": rectangle(10, 5, 30, 20),
        "two": rectangle(10, 5, 18, 20) + rectangle(18, 5, 30, 20),
        "runs": {"size": [40, 50], "counts": runs(expected)},
        "string": {"size": [40, 50], "counts": compressed["counts"].decode()},
    }
    for name, shape in shapes.items():
        root = coco(tmp_path / name, [(0, CAT, shape, {"iscrowd": int(name == "runs")})])
        ids = only_label(root)
        np.testing.assert_array_equal(ids, np.where(expected, VOC.names.index("cat"), 0), name)


@pytest.mark.parametrize("seed", range(5))
def test_compressed_rle_of_pycocotools_is_read(seed):
    pycocotools_mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(seed)
    mask = random.random((23, 31)) < random.choice([0.02, 0.5, 0.98])
    mask = mask.repeat(seed + 1, axis=0)
    encoded = pycocotools_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_values.runs_of_string(encoded["counts"].decode()) == runs(mask)
    assert coco_values.runs_of_string(encoded["counts"].decode()[:-1] + "o") is None


def test_overlap_of_objects_is_ignored_or_of_the_first(tmp_path):
    root = coco(
        tmp_path, [(0, DOG, rectangle(0, 0, 20, 20)), (0, PERSON, rectangle(10, 10, 30, 30))]
    )
    dog, person = VOC.names.index("dog"), VOC.names.index("person")
    expected = np.zeros((40, 50), np.uint8)
    expected[10:30, 10:30] = person
    expected[:20, :20] = dog
    np.testing.assert_array_equal(only_label(root, object_overlap="first"), expected)
    expected[10:20, 10:20] = 255
    np.testing.assert_array_equal(only_label(root, object_overlap="ignore"), expected)


def test_overlap_of_two_objects_of_the_same_class_is_ignored(tmp_path):
    root = coco(tmp_path, [(0, CAT, rectangle(0, 0, 20, 20)), (0, CAT, rectangle(10, 0, 30, 20))])
    ids = only_label(root)
    assert [(ids == value).sum() for value in (VOC.names.index("cat"), 255)] == [400, 200]


@pytest.mark.parametrize("same", [True, False])
def test_overlap_with_own_categories_is_ignored_between_classes_only(tmp_path, same):
    """Nothing is doubtful where two objects of one class overlap, or one was drawn twice."""
    other = CAT if same else DOG
    objects = [(0, CAT, rectangle(0, 0, 20, 20)), (0, other, rectangle(10, 0, 30, 20))]
    manifest = build(coco(tmp_path, [*objects, objects[0]]), categories="own")
    cat, dog = (manifest.pixels_per_class[manifest.names.index(name)] for name in ("cat", "dog"))
    assert (cat, dog, manifest.pixels_ignored) == ((600, 0, 0) if same else (200, 200, 200))


def test_objects_without_pixels_are_counted_in_the_summary(tmp_path):
    line, outside = [[5, 5, 9, 9, 5, 5]], rectangle(60, 0, 70, 10)
    shapes = [GOOD, line, outside, [[0, 0, 0, 0, 0, 0]], {"size": [40, 50], "counts": [2000]}]
    root = coco(tmp_path, [(0, CAT, shape) for shape in shapes])
    manifest = build(root)
    assert manifest.arguments["objects_without_pixels"] == {"tiny": {"0.jpg": 4}}
    assert re.search(r"'tiny' 4 object.*0\.jpg", summary.report([manifest], root))
    assert manifest.pixels_per_class[VOC.names.index("cat")] == 400


@pytest.mark.parametrize(
    ("objects", "named"),
    [
        ([], "all labelled pixels are 'background'.*JSON"),
        ([(0, CAT, rectangle(0, 0, 50, 35)), (0, DOG, rectangle(0, 5, 50, 35))], "overlap=first"),
        ([(0, CAT, rectangle(0, 0, 50, 20))], "no pixel of any split is .*'dog'.*JSON"),
    ],
)
def test_warnings_do_not_name_what_a_json_has_not(tmp_path, objects, named):
    """There are no masks, no classes file and no --remap table."""
    root = coco(tmp_path, objects)
    report = summary.report([build(root, categories="own")], "out")
    assert re.search(named, report)
    assert not re.search("mask|remap|build_folder|classes file", report)


def test_categories_that_are_not_in_voc_are_background_or_classes(tmp_path):
    root = coco(tmp_path, [(0, UMBRELLA, rectangle(0, 0, 20, 20))])
    assert only_label(root).max() == 0
    manifest = build(root, categories="all")
    assert manifest.label_set() == COCO
    assert manifest.pixels_per_class[COCO.names.index("umbrella")] == 400


def test_small_objects_and_images_with_few_object_pixels_are_left_out(tmp_path):
    # `area` in the JSON is not read.
    area = {"area": 99999.0}
    root = coco(
        tmp_path,
        [
            (0, CAT, rectangle(0, 0, 25, 40), area),
            (1, CAT, rectangle(0, 0, 25, 40), area),
            (1, DOG, rectangle(30, 0, 31, 1), area),
            (1, UMBRELLA, rectangle(30, 0, 50, 40), area),
        ],
        sizes=((40, 50), (40, 50), (40, 50)),
    )
    # 1000 pixels are not more than 1000, but 1001 are. The umbrella does not count.
    manifest = build(root, min_image_area=1000)
    assert list(shards.labels(root / "out", "tiny")) == ["1"]
    assert sum(manifest.arguments["images_left_out"]["tiny"].values()) == 2
    # The dog is too small and becomes background; 1000 pixels are enough for the cats.
    manifest = build(root, min_object_area=1000)
    assert manifest.num_examples == 3
    assert manifest.pixels_per_class[VOC.names.index("cat")] == 2000
    assert manifest.pixels_per_class[VOC.names.index("dog")] == 0
    # Without the dog, there are too few pixels in its image.
    with pytest.raises(UserError, match="'tiny'"):
        build(root, min_object_area=1000, min_image_area=1000)


def test_polygon_is_clipped_to_the_image(tmp_path):
    ids = only_label(coco(tmp_path, [(0, CAT, rectangle(-10, -5, 10, 60))]))
    expected = np.zeros((40, 50), bool)
    expected[:, :10] = True
    np.testing.assert_array_equal(ids > 0, expected)


GOOD = rectangle(0, 0, 20, 20)
# pycocotools does not reject all of these. With too few runs it draws random pixels, and a
# coordinate that is not a number ends the process.
BAD_SHAPES = {
    "empty": ([], "segmentation"),
    "line": ([[0, 0, 5, 5]], "polygon"),
    "odd": ([[0, 0, 5, 5, 5, 0, 1]], "polygon"),
    "words": ([["a", "b", "c", "d", "e", "f"]], "segmentation"),
    "nothing": (None, "segmentation"),
    "not a number": ([[0, 0, float("nan"), 5, 5, 0]], "polygon"),
    "far": ([[0, 0, 1e9, 0, 0, 1e9]], "50x40"),
    "size": ({"size": [50, 40], "counts": [2000]}, "[50, 40]"),
    "short": ({"size": [40, 50], "counts": [1, 2, 3]}, "2000"),
    "short string": ({"size": [40, 50], "counts": "123"}, "2000"),
    "negative": ({"size": [40, 50], "counts": [-1, 2001]}, "2000"),
    "damaged": ({"size": [40, 50], "counts": "\u00e9~~"}, "2000"),
    "no counts": ({"size": [40, 50]}, "2000"),
    "fractions": ([[0.1, 0.1, 0.3, 0.1, 0.3, 0.3]], "0 to 1"),
    "all of the image": (rectangle(0, 0, 1, 1), "0 to 1"),
    "two numbers": ([1, 2], "polygon"),
    "two points": ([[1, 1], [5, 5]], "polygon"),
    "nothing after a polygon": ([[0, 0, 5, 0, 5, 5], []], "polygon"),
}


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_bad_object_is_named(tmp_path, name):
    shape, received = BAD_SHAPES[name]
    root = coco(tmp_path, [(0, DOG, GOOD), (0, CAT, shape)])
    with pytest.raises(UserError) as caught:
        build(root)
    expected = ("instances_tiny.json", "0.jpg (image id 100): annotation 1: ", received)
    problem, *_ = folders.problems_of(caught.value)
    assert all(text in problem for text in expected)


def test_all_problems_are_found_in_one_run_and_nothing_is_written(tmp_path):
    root = coco(
        tmp_path,
        [
            (0, CAT, GOOD),
            (0, 12, GOOD),
            (1, DOG, GOOD),
            (9, DOG, GOOD),
            (2, DOG, GOOD),
            (2, DOG, GOOD, {"id": 4}),
        ],
        sizes=((40, 50),) * 5,
    )
    path = root / "annotations" / "instances_tiny.json"
    content = json.loads(path.read_text())
    content["images"] += [
        {"id": 104, "file_name": "again.jpg", "height": 40, "width": 50},
        {"id": 200, "file_name": "../0.jpg", "height": 40, "width": 50},
        {"id": 201, "file_name": "/tmp/0.jpg", "height": 40, "width": 50},
        {"id": 202, "file_name": "a\\..\\..\\0.jpg", "height": 40, "width": 50},
        {"id": 203, "file_name": "gone.jpg", "height": 40, "width": 50},
        {"id": 204, "file_name": "huge.jpg", "height": 10**6, "width": 10**6},
        {"id": 205, "file_name": "flat.jpg", "height": 0, "width": 50},
        {"id": 206, "file_name": "./3.jpg", "height": 40, "width": 50},
        {"id": 208, "file_name": "images/1.jpg", "height": 40, "width": 50},
        {"id": 209, "file_name": "C:\\1.jpg", "height": 40, "width": 50},
        {"id": 210, "image_id": 210, "category_id": 1},
        {"id": 207, "file_name": "text.txt", "height": 40, "width": 50},
        {"file_name": "unnumbered.jpg"},
    ]
    content["annotations"] += [
        {"id": 7, "image_id": 100, "category_id": 1},
        {"id": 8, "category_id": 1, "segmentation": GOOD},
        {"id": 9, "image_id": [100], "category_id": 1, "segmentation": GOOD},
    ]
    path.write_text(json.dumps(content))
    folders.image(root / "tiny" / "1.jpg", size=(50, 41))
    expected = [
        ("0.jpg (image id 100): annotation 1: category id 12", "annotation 7: the segmentation"),
        ("1.jpg: ", "50x40", "50x41"),
        ("image id 109", "annotation 3"),
        ("2.jpg (image id 102): annotation 4: its id", "twice"),
        ("image id 104 occurs twice", "'4.jpg'", "'again.jpg'"),
        ("image id 200: ", "'../0.jpg'"),
        ("image id 201: ", "'/tmp/0.jpg'"),
        ("image id 202: ", "'a/../../0.jpg'"),
        ("gone.jpg: ", "not found"),
        ("image id 204 (huge.jpg): ", "1000000x1000000"),
        ("image id 205 (flat.jpg): ", "height"),
        ("3.jpg: ", "'3'", "image id 103", "image id 206"),
        ("image id 208: ", "'images/1.jpg'"),
        ("image id 209: ", "'C:/1.jpg'"),
        ("without id", "210"),
        ("image id 207: ", "text.txt", ".jpg"),
        ("without id", "unnumbered.jpg"),
        ("annotation without an image id: {'id': 8",),
        ("annotation without an image id: 9",),
    ]
    with pytest.raises(UserError) as caught:
        build(root)
    assert_problems(expected, caught)
    assert folders.contents(root / "out") == {}


def test_image_with_a_bad_object_can_be_skipped(tmp_path):
    root = coco(
        tmp_path, [(0, CAT, GOOD), (1, CAT, GOOD), (1, DOG, [])], sizes=((40, 50), (40, 50))
    )
    manifest = build(root, on_error="skip")
    assert list(shards.labels(root / "out", "tiny")) == ["0"]
    assert len(manifest.skipped) == 1
    assert "1.jpg (image id 101): annotation 2" in manifest.skipped[0]
    assert check_records.check(root / "out")[0].problems == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", ""),
        ("[]", "images"),
        ('{"images": [], "annotations": []}', "categories"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "weed"}]}',
            "1.*'weed'.*'person'",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 12, "name": "weed"}]}',
            "12.*'weed'",
        ),
        ('{"images": [], "annotations": [], "categories": ["weed"]}', "'weed'"),
        (None, ""),
    ],
)
def test_missing_or_unsuitable_json_is_named(tmp_path, text, named):
    root = coco(tmp_path, [])
    path = root / "annotations" / "instances_tiny.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"instances_tiny\.json.*{named}"):
        build(root)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("categories", "stuff"),
        ("object_overlap", "last"),
        ("min_image_area", -1),
        ("min_object_area", -5),
    ],
)
def test_bad_arguments_are_rejected_by_name(tmp_path, argument, value):
    with pytest.raises(UserError, match=f"`{argument}`.*{value}"):
        build(coco(tmp_path, [(0, CAT, GOOD)]), **{argument: value})


def test_without_pycocotools_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(UserError, match='the extra "coco"'):
        build(coco(tmp_path, [(0, CAT, GOOD)]))


def test_two_processes_write_the_same_bytes(tmp_path):
    shapes = [(k % 8, CAT, rectangle(k, k, k + 9, k + 7)) for k in range(24)]
    root = coco(tmp_path, shapes, sizes=((40, 50),) * 8)
    build(root, "one", workers=1)
    build(root, "two", workers=2)
    assert folders.contents(root / "one") == folders.contents(root / "two")
