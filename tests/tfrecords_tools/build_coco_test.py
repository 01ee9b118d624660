"""COCO: its objects drawn into VOC's 21 classes, or into all of its own."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kseg.data.datasets import COCO, VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_coco, check_records, coco_json

# Category ids of COCO, as its JSON files have them.
PERSON, CAT, UMBRELLA, DOG = 1, 17, 28, 18
NAMES = {PERSON: "person", CAT: "cat", UMBRELLA: "umbrella", DOG: "dog"}
# Where COCO spells one of VOC's classes otherwise.
SPELT = {
    "airplane": "aeroplane",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}


def rectangle(left, top, right, bottom):
    """A polygon that holds the pixels of columns left to right - 1, rows top to bottom - 1."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask):
    """Lengths of runs down the columns, outside first: an RLE by its definition."""
    found, value = [0], False
    for pixel in mask.ravel(order="F"):
        if bool(pixel) != value:
            found.append(0)
            value = not value
        found[-1] += 1
    return found


def inside(found, shape):
    """The mask of `runs`, by its definition."""
    values = np.repeat(np.arange(len(found)) % 2, found)
    return values.reshape(shape, order="F").astype(bool)


def coco(root, annotations, sizes=((40, 50),), split="tiny", **changes):
    """Writes a folder in COCO's layout; annotations are (image, category, segmentation, ...)."""
    content = {
        "images": [
            {"id": 100 + k, "file_name": f"{k}.jpg", "height": size[0], "width": size[1]}
            for k, size in enumerate(sizes)
        ],
        "annotations": [
            {"id": k, "image_id": 100 + one[0], "category_id": one[1], "segmentation": one[2]}
            | (one[3] if len(one) > 3 else {})
            for k, one in enumerate(annotations)
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


def only_label(root, **changes):
    build(root, **changes)
    return shards.labels(root / "out", "tiny")["0"]


@pytest.mark.parametrize("overlap", ["first", "ignore"])
def test_real_objects_are_drawn_where_pillow_draws_them(real_data, tmp_path, overlap):
    """Polygons by another rasteriser, runs by their definition, classes by their names."""
    raw = real_data / "coco_tiny"
    how = {"splits": ["train2017"], "min_image_area": 0, "overlap": overlap}
    manifest = build_coco.build(raw, tmp_path, **how)[0]
    assert manifest.label_set() == VOC
    assert check_records.check(tmp_path)[0].problems == []
    found = shards.labels(tmp_path, "train2017")
    assert len(found) == 80
    drawn, crowds = pillow(raw, overlap)
    assert crowds == 6
    same = sum((found[name] == ids).sum() for name, ids in drawn.items())
    pixels = sum(ids.size for ids in drawn.values())
    # The two rasterisers differ on the outlines alone.
    assert same / pixels > 0.985
    for class_id in (*range(21), *[255] * (overlap == "ignore")):
        ours, theirs = (
            np.concatenate([one[name].ravel() == class_id for name in drawn])
            for one in (found, drawn)
        )
        union = (ours | theirs).sum()
        # Where several objects meet, 255 is little more than outline.
        assert (ours & theirs).sum() >= (0.6 if class_id == 255 else 0.85) * union, class_id


def pillow(raw, overlap):
    """Name -> label map, drawn from the JSON without the code under test; number of RLEs used."""
    content = json.loads((raw / "annotations" / "instances_train2017.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    images = {one["id"]: one for one in content["images"]}
    labels = {k: np.zeros((v["height"], v["width"]), np.uint8) for k, v in images.items()}
    taken = {k: np.zeros(v.shape, bool) for k, v in labels.items()}
    crowds = 0
    for one in content["annotations"]:
        name = SPELT.get(names[one["category_id"]], names[one["category_id"]])
        if isinstance(one["segmentation"], dict):
            crowds += 1
        if name not in VOC.names:
            continue
        ids, seen = labels[one["image_id"]], taken[one["image_id"]]
        if isinstance(one["segmentation"], dict):
            where = inside(one["segmentation"]["counts"], ids.shape)
        else:
            picture = Image.new("1", ids.shape[::-1])
            for polygon in one["segmentation"]:
                # Pillow's pixels lie on the coordinates, COCO's between them.
                ImageDraw.Draw(picture).polygon([value - 0.5 for value in polygon], fill=1)
            where = np.asarray(picture)
        ids[where & ~seen] = VOC.names.index(name)
        if overlap == "ignore":
            ids[where & seen] = 255
        seen |= where
    return {images[k]["file_name"].removesuffix(".jpg"): ids for k, ids in labels.items()}, crowds


def test_the_real_set_by_the_rules_of_the_papers(real_data, tmp_path):
    def counts(out, **how):
        raw = real_data / "coco_tiny"
        one = build_coco.build(raw, tmp_path / out, splits=["train2017"], **how)[0]
        return one.num_examples, one.arguments["images_left_out"]["train2017"]

    assert counts("ksac") == (64, 16)
    assert counts("vortex", min_object_area=1000) == (62, 18)
    assert counts("every", min_image_area=0) == (80, 0)
    assert counts("all", classes="all") == (79, 1)
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
def test_a_compressed_rle_is_read_as_pycocotools_writes_it(seed):
    pycocotools_mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(seed)
    mask = random.random((23, 31)) < random.choice([0.02, 0.5, 0.98])
    mask = mask.repeat(seed + 1, axis=0)
    encoded = pycocotools_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_json.runs_of_string(encoded["counts"].decode()) == runs(mask)
    assert coco_json.runs_of_string(encoded["counts"].decode()[:-1] + "o") is None


def test_where_objects_overlap_the_policy_decides(tmp_path):
    root = coco(
        tmp_path, [(0, DOG, rectangle(0, 0, 20, 20)), (0, PERSON, rectangle(10, 10, 30, 30))]
    )
    dog, person = VOC.names.index("dog"), VOC.names.index("person")
    expected = np.zeros((40, 50), np.uint8)
    expected[10:30, 10:30] = person
    expected[:20, :20] = dog
    np.testing.assert_array_equal(only_label(root, overlap="first"), expected)
    expected[10:20, 10:20] = 255
    np.testing.assert_array_equal(only_label(root, overlap="ignore"), expected)


def test_two_objects_of_one_class_that_overlap_are_ignored_as_well(tmp_path):
    root = coco(tmp_path, [(0, CAT, rectangle(0, 0, 20, 20)), (0, CAT, rectangle(10, 0, 30, 20))])
    ids = only_label(root)
    assert [(ids == value).sum() for value in (VOC.names.index("cat"), 255)] == [400, 200]


def test_other_categories_are_background_or_classes_of_their_own(tmp_path):
    root = coco(tmp_path, [(0, UMBRELLA, rectangle(0, 0, 20, 20))])
    assert only_label(root).max() == 0
    manifest = build(root, classes="all")
    assert manifest.label_set() == COCO
    assert manifest.pixels_per_class[COCO.names.index("umbrella")] == 400


def test_small_objects_and_images_with_little_in_them_are_dropped_by_pixels(tmp_path):
    # `area` in the JSON is not believed: it is that of another drawing.
    lie = {"area": 99999.0}
    root = coco(
        tmp_path,
        [
            (0, CAT, rectangle(0, 0, 25, 40), lie),
            (1, CAT, rectangle(0, 0, 25, 40), lie),
            (1, DOG, rectangle(30, 0, 31, 1), lie),
            (1, UMBRELLA, rectangle(30, 0, 50, 40), lie),
        ],
        sizes=((40, 50), (40, 50), (40, 50)),
    )
    # 1000 pixels do not exceed 1000; 1001 do, though the umbrella does not count.
    manifest = build(root, min_image_area=1000)
    assert list(shards.labels(root / "out", "tiny")) == ["1"]
    assert manifest.arguments["images_left_out"] == {"tiny": 2}
    # The dog is too small and becomes background; 1000 pixels are enough for the cats.
    manifest = build(root, min_object_area=1000)
    assert manifest.num_examples == 3
    assert manifest.pixels_per_class[VOC.names.index("cat")] == 2000
    assert manifest.pixels_per_class[VOC.names.index("dog")] == 0
    # Without the dog there is not enough in its image.
    with pytest.raises(UserError, match="split 'tiny' has no images"):
        build(root, min_object_area=1000, min_image_area=1000)


def test_a_polygon_that_leaves_the_image_is_cut(tmp_path):
    ids = only_label(coco(tmp_path, [(0, CAT, rectangle(-10, -5, 10, 60))]))
    expected = np.zeros((40, 50), bool)
    expected[:, :10] = True
    np.testing.assert_array_equal(ids > 0, expected)


GOOD = rectangle(0, 0, 20, 20)
FAULTS = {
    "empty": ([], "the segmentation is empty"),
    "a line": ([[0, 0, 5, 5]], "three points or more; one has 4"),
    "odd": ([[0, 0, 5, 5, 5, 0, 1]], "one has 7"),
    "words": ([["a", "b", "c", "d", "e", "f"]], "neither polygons nor an RLE"),
    "nothing": (None, "neither polygons nor an RLE"),
    "no number": ([[0, 0, float("nan"), 5, 5, 0]], "no number"),
    "far": ([[0, 0, 1e9, 0, 0, 1e9]], "far outside the image of 50x40"),
    "size": ({"size": [50, 40], "counts": [2000]}, "an RLE of size [50, 40] for"),
    "short": ({"size": [40, 50], "counts": [1, 2, 3]}, "must add up to 2000 pixels"),
    "below 0": ({"size": [40, 50], "counts": [-1, 2001]}, "must add up to 2000 pixels"),
    "damaged": ({"size": [40, 50], "counts": "\u00e9~~"}, "must add up to 2000 pixels"),
    "no counts": ({"size": [40, 50]}, "must add up to 2000 pixels"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_object_is_named_and_drawn_by_nobody(tmp_path, name):
    shape, reason = FAULTS[name]
    root = coco(tmp_path, [(0, DOG, GOOD), (0, CAT, shape)])
    with pytest.raises(UserError) as caught:
        build(root)
    line = next(line for line in str(caught.value).splitlines() if "annotation 1 of 0.jpg" in line)
    assert "instances_tiny.json" in line and "image id 100" in line
    assert reason in line


def test_every_fault_is_found_in_one_run_and_nothing_is_left(tmp_path):
    root = coco(
        tmp_path,
        [
            (0, CAT, GOOD),
            (0, 12, GOOD),
            (1, DOG, GOOD),
            (9, DOG, GOOD),
            (2, DOG, GOOD, {"id": 0}),
        ],
        sizes=((40, 50),) * 4,
    )
    path = root / "annotations" / "instances_tiny.json"
    content = json.loads(path.read_text())
    content["images"] += [
        {"id": 100, "file_name": "again.jpg", "height": 40, "width": 50},
        {"id": 200, "file_name": "../0.jpg", "height": 40, "width": 50},
        {"id": 201, "file_name": "/tmp/0.jpg", "height": 40, "width": 50},
        {"id": 202, "file_name": "a\\..\\0.jpg", "height": 40, "width": 50},
        {"id": 203, "file_name": "gone.jpg", "height": 40, "width": 50},
        {"id": 204, "file_name": "huge.jpg", "height": 10**6, "width": 10**6},
        {"id": 205, "file_name": "flat.jpg", "height": 0, "width": 50},
        {"id": 206, "file_name": "3.jpg", "height": 40, "width": 50},
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
        "annotation 1 of 0.jpg (image id 100): category id 12 is not one of COCO's",
        "1.jpg: mask of 50x40 for an image of 50x41",
        "image id 109 of 1 annotation(s) is not among the images (annotation 3)",
        "annotation 0 of 2.jpg (image id 102): its id occurs twice",
        "image id 100 occurs twice",
        "image id 200: not the name of a file in the folder of images: '../0.jpg'",
        "image id 201: not the name of a file in the folder of images: '/tmp/0.jpg'",
        r"image id 202: not the name of a file in the folder of images: 'a\\..\\0.jpg'",
        "gone.jpg: image not found",
        "image id 204 (huge.jpg): 1000000x1000000 is more than",
        "image id 205 (flat.jpg): no height and width",
        "3.jpg: id '3' occurs twice in split 'tiny'",
        "image id 207: no image by its name: text.txt",
        "image without id or file name: {'file_name': 'unnumbered.jpg'}",
        "annotation 7 of 0.jpg (image id 100): the segmentation is neither polygons nor an RLE",
        "annotation that names no image: {'id': 8",
        "annotation that names no image: {'id': '9', 'image_id': '[100]'}",
    ]
    with pytest.raises(UserError) as caught:
        build(root)
    lines = str(caught.value).splitlines()[1:]
    for reason in expected:
        assert len([line for line in lines if reason in line]) == 1, reason
    assert len(lines) == len(expected)
    assert folders.contents(root / "out") == {}


def test_an_image_with_a_faulty_object_can_be_skipped_whole(tmp_path):
    root = coco(
        tmp_path, [(0, CAT, GOOD), (1, CAT, GOOD), (1, DOG, [])], sizes=((40, 50), (40, 50))
    )
    manifest = build(root, on_error="skip")
    assert list(shards.labels(root / "out", "tiny")) == ["0"]
    assert len(manifest.skipped) == 1
    assert "annotation 2 of 1.jpg" in manifest.skipped[0]
    assert check_records.check(root / "out")[0].problems == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no instances JSON: it has no list of images"),
        ('{"images": [], "annotations": []}', "it has no list of categories"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "weed"}]}',
            "category 1 is 'weed', but in COCO 'person'",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 12, "name": "weed"}]}',
            "category 12 is 'weed', but in COCO there is no such category",
        ),
    ],
)
def test_another_json_is_refused_by_name(tmp_path, text, message):
    root = coco(tmp_path, [])
    (root / "annotations" / "instances_tiny.json").write_text(text)
    with pytest.raises(UserError, match=rf"instances_tiny\.json.* {message}"):
        build(root)


def test_a_missing_json_is_named(tmp_path):
    root = coco(tmp_path, [])
    (root / "annotations" / "instances_tiny.json").unlink()
    with pytest.raises(UserError, match=r"instances_tiny\.json cannot be read .No such file"):
        build(root)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"classes": "stuff"}, "`classes` must be one of voc, all. Received: 'stuff'"),
        ({"overlap": "last"}, "`overlap` must be one of ignore, first. Received: 'last'"),
        ({"min_image_area": -1}, "`min_image_area` must be at least 0. Received: -1"),
        ({"min_object_area": -5}, "`min_object_area` must be at least 0. Received: -5"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, how, message):
    with pytest.raises(UserError, match=message):
        build(coco(tmp_path, [(0, CAT, GOOD)]), **how)


def test_without_pycocotools_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(UserError, match='the extra "coco"'):
        build(coco(tmp_path, [(0, CAT, GOOD)]))


def test_the_same_bytes_come_out_of_two_processes(tmp_path):
    shapes = [(k % 8, CAT, rectangle(k, k, k + 9, k + 7)) for k in range(24)]
    root = coco(tmp_path, shapes, sizes=((40, 50),) * 8)
    build(root, "one", workers=1)
    build(root, "two", workers=2)
    assert folders.contents(root / "one") == folders.contents(root / "two")
