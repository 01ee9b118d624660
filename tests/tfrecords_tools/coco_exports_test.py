"""Instances JSONs as annotation tools write them: own categories, loose types, other layouts."""

import json

import numpy as np
import pytest

from kseg.data.datasets import VOC, LabelSet
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tests.tfrecords_tools.build_coco_test import CAT, DOG, GOOD, build, coco, rectangle
from tfrecords_tools import build_coco, check_records
from tfrecords_tools.coco_categories import own_classes

WELD, RUST = {"id": 4, "name": "weld"}, {"id": 2, "name": "rust"}


def rewrite(root, change, split="tiny", encoding="utf-8"):
    """Applies a function to the content of the JSON of a split."""
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content), encoding=encoding)
    return root


def own(tmp_path, categories=(WELD, RUST), objects=((0, 4, GOOD),), **changes):
    return coco(tmp_path, objects, categories=list(categories), **changes)


def test_own_categories_are_classes_in_the_order_of_their_ids(tmp_path):
    root = own(tmp_path, objects=((0, 4, GOOD), (0, 2, rectangle(30, 0, 40, 10))))
    manifest = build(root, categories="own", min_image_area=None)
    assert manifest.names == ("background", "rust", "weld")
    assert manifest.pixels_per_class == (2000 - 500, 100, 400)
    assert check_records.check(root / "out")[0].problems == []


def test_image_without_objects_is_background_with_own_categories(tmp_path):
    root = own(tmp_path, sizes=((40, 50), (40, 50)))
    manifest = build(root, categories="own", min_image_area=None)
    assert manifest.pixels_per_class == (4000 - 400, 0, 400)


@pytest.mark.parametrize(
    ("categories", "names", "ids"),
    [
        # Roboflow's first category is the project, here with the name of its only class.
        (
            [
                {"id": 0, "name": "rust", "supercategory": "none"},
                {"id": 1, "name": "rust", "supercategory": "rust"},
            ],
            ("background", "rust"),
            {1: 1},
        ),
        # labelme2coco's first category is the background.
        (
            [{"id": 0, "name": "_background_"}, {"id": 1, "name": "rust", "supercategory": None}],
            ("background", "rust"),
            {0: 0, 1: 1},
        ),
        ([{"id": "b", "name": " b "}, {"id": "3.0", "name": "a"}], ("background", "a", "b"), None),
    ],
)
def test_background_and_project_are_not_added_as_classes(tmp_path, categories, names, ids):
    classes = own_classes(tmp_path, categories)
    assert classes.label_set.names == names
    assert classes.ids == (ids or {3: 1, "b": 2})


@pytest.mark.parametrize("background_first", [True, False])
@pytest.mark.parametrize("overlap", ["ignore", "first"])
def test_objects_of_the_background_draw_nothing(tmp_path, overlap, background_first):
    objects = [(0, 1, rectangle(0, 0, 50, 40)), (0, 4, GOOD)]
    objects = objects if background_first else objects[::-1]
    root = own(tmp_path, [{"id": 1, "name": "background"}, WELD], [*objects, (1, 1, GOOD)],
               sizes=((40, 50), (40, 50)))  # fmt: skip
    manifest = build(root, categories="own", object_overlap=overlap)
    assert (manifest.pixels_per_class, manifest.pixels_ignored) == ((4000 - 400, 400), 0)
    # Nor do they count as objects of an image.
    manifest = build(root, categories="own", object_overlap=overlap, min_image_area=399)
    assert list(shards.labels(root / "out", "tiny")) == ["0"]


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (("#ff0000", "0, 255 ,0"), ((0, 255, 0), (255, 0, 0))),
        (([255, 0, 0.0], "00ff00"), ((0, 255, 0), (255, 0, 0))),
        (("#ff0000", None), VOC.colours[1:3]),
        (("#ff0000", "red"), VOC.colours[1:3]),
        (("#ff0000", [255, 0, 0]), VOC.colours[1:3]),
    ],
)
def test_colours_of_the_json_are_used_if_every_class_has_one(tmp_path, colours, expected):
    pairs = zip((WELD, RUST), colours, strict=True)
    classes = own_classes(tmp_path, [{**category, "color": colour} for category, colour in pairs])
    assert classes.label_set.colours == ((0, 0, 0), *expected)


@pytest.mark.parametrize(
    ("categories", "named"),
    [
        ([], "no category"),
        ([{"id": 1, "name": "background"}], "no category"),
        ([{"id": 1, "name": "Background"}, {"id": 2, "name": "_background_"}, WELD], "background"),
        ([WELD, {**WELD, "id": 5}], "weld"),
        ([{"id": 1, "name": "caf\u00e9"}, {"id": 2, "name": "cafe\u0301"}], "caf\u00e9"),
        ([WELD, {**RUST, "id": 4.0}], "4"),
        ([{"id": 1}], "name"),
        (["weld"], "weld"),
        ([{"id": k, "name": f"class {k}"} for k in range(255)], "255"),
    ],
)
def test_categories_that_cannot_be_classes_are_rejected_by_name(tmp_path, categories, named):
    with pytest.raises(UserError, match=rf"x\.json: .*{named}"):
        own_classes(tmp_path / "x.json", categories)


def test_own_categories_must_be_the_same_in_all_splits(tmp_path):
    own(tmp_path)
    own(tmp_path, split="held_out", categories=[WELD], sizes=((40, 50), (40, 50)))
    rewrite(tmp_path, lambda content: content["images"].pop(0), "held_out")
    rewrite(tmp_path, lambda content: content["annotations"].pop(), "held_out")
    with pytest.raises(UserError, match=r"instances_held_out\.json.*instances_tiny\.json"):
        build(tmp_path, splits=["tiny", "held_out"], categories="own")


@pytest.mark.parametrize("colour", ["#00ff00", None])
def test_the_first_split_gives_the_colours_of_own_categories(tmp_path, colour):
    for split, value in (("tiny", "#ff0000"), ("held_out", colour)):
        own(tmp_path, [{**WELD, "color": value}], split=split)
    (tmp_path / "held_out" / "0.jpg").rename(tmp_path / "held_out" / "1.jpg")
    folders.image(tmp_path / "held_out" / "1.jpg", size=(50, 40), seed=1)
    rewrite(tmp_path, lambda c: c["images"][0].update(file_name="1.jpg"), "held_out")
    arguments = {"splits": ["tiny", "held_out"], "categories": "own", "min_image_area": 0}
    for manifest in build_coco.build(tmp_path, tmp_path / "out", **arguments):
        assert manifest.label_set() == LabelSet(("background", "weld"), ((0, 0, 0), (255, 0, 0)))


def test_own_categories_are_rejected_with_the_flag_that_takes_them(tmp_path):
    with pytest.raises(UserError, match=r"'rust'.*--categories=own|'weld'.*--categories=own"):
        build(own(tmp_path))


PAIRS = [GOOD[0][k : k + 2] for k in range(0, 8, 2)]
LOOSE = {
    "category": lambda c: c["annotations"][0].update(category_id=float(DOG)),
    "category text": lambda c: c["annotations"][0].update(category_id=str(DOG)),
    "size": lambda c: c["images"][0].update(height=40.0, width="50"),
    "image": lambda c: [c["images"][0].update(id="100"), c["annotations"][0].update(image_id=1e2)],
    "coordinates": lambda c: c["annotations"][0].update(segmentation=[[*map(str, GOOD[0])]]),
    "flat": lambda c: c["annotations"][0].update(segmentation=GOOD[0]),
    "pairs": lambda c: c["annotations"][0].update(segmentation=PAIRS),
    "nested pairs": lambda c: c["annotations"][0].update(segmentation=[PAIRS]),
    "no size": lambda c: [c["images"][0].pop("height"), c["images"][0].update(width=None)],
    "size 0": lambda c: c["images"][0].update(height=0, width="0"),
    "image with image id": lambda c: c["images"][0].update(image_id=100),
    "ids begin again": lambda c: [
        c["annotations"].append(c["annotations"][0] | {"image_id": 101}),
        c["images"].append(c["images"][0] | {"id": 101, "file_name": "1.jpg"}),
    ],
    "no ids": lambda c: [entry.pop("id") for entry in c["annotations"]],
    "null ids": lambda c: [entry.update(id=None, area=None) for entry in c["annotations"]],
    "crowd": lambda c: c["annotations"][0].update(iscrowd="0", area="many"),
    "runs": lambda c: c["annotations"][0].update(
        segmentation={"size": [40.0, "50"], "counts": [0, 20] + [20.0, 20.0] * 19 + [1220]}
    ),
}


@pytest.mark.parametrize("name", LOOSE)
def test_loose_types_are_read_as_what_they_say(tmp_path, name):
    objects = [(0, DOG, GOOD), (0, CAT, rectangle(30, 0, 50, 40))]
    expected = shards.labels(coco_out(coco(tmp_path / "plain", objects)), "tiny")["0"]
    folders.image(tmp_path / "loose" / "tiny" / "1.jpg", size=(50, 40))
    root = rewrite(coco(tmp_path / "loose", objects), LOOSE[name])
    np.testing.assert_array_equal(shards.labels(coco_out(root), "tiny")["0"], expected)


def coco_out(root):
    build(root)
    return root / "out"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_and_missing_info_are_accepted(tmp_path, encoding):
    root = rewrite(coco(tmp_path, [(0, DOG, GOOD)]), lambda content: None, encoding=encoding)
    assert build(root).num_examples == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["images"][0].update(height=39.5),
        lambda c: c["images"][0].update(height=-40),
        lambda c: c["images"][0].update(height=0, width=49),
        lambda c: c["annotations"][0].update(category_id=18.5),
        lambda c: c["annotations"][0].update(category_id=True),
        lambda c: c["annotations"][0].update(segmentation=["0123456789"]),
        lambda c: c["annotations"][0].update(segmentation=[], bbox=[0, 0, 20, 20]),
    ],
)
def test_what_no_reader_understands_is_rejected(tmp_path, change):
    root = rewrite(coco(tmp_path, [(0, DOG, GOOD)]), change)
    with pytest.raises(UserError, match=r"0\.jpg"):
        build(root)


def test_text_with_leading_zeros_is_an_id_of_its_own(tmp_path):
    def change(content):
        for entry, number in zip(content["images"], ("007", 7), strict=True):
            entry["id"] = number
        content["annotations"][0]["image_id"] = "007"

    root = rewrite(coco(tmp_path, [(0, DOG, GOOD)], sizes=((40, 50), (40, 50))), change)
    build(root)
    assert {k: v.any() for k, v in shards.labels(root / "out", "tiny").items()} == {
        "0": True,
        "1": False,
    }


@pytest.mark.parametrize("bad", [{"category_id": 12}, {"segmentation": [[1, 2]]}, {"id": 1}])
def test_image_with_several_faulty_objects_is_left_out_and_named_once(tmp_path, bad):
    root = coco(
        tmp_path,
        [(0, CAT, GOOD), (1, CAT, GOOD), (1, DOG, GOOD, bad), (1, DOG, GOOD, bad)],
        sizes=((40, 50), (40, 50)),
    )
    manifest = build(root, on_error="skip")
    assert list(shards.labels(root / "out", "tiny")) == ["0"]
    (problem,) = manifest.skipped
    assert problem.count("1.jpg") == 1
    assert problem.count("annotation") >= 2


def test_object_that_may_belong_to_any_image_cannot_be_skipped(tmp_path):
    root = coco(tmp_path, [(0, CAT, GOOD), (0, CAT, GOOD, {"image_id": None})])
    with pytest.raises(UserError, match="annotation without an image id: 1"):
        build(root, on_error="skip")
    assert not (root / "out").exists()


@pytest.mark.parametrize("number", ["007", "a"])
def test_objects_of_an_unknown_image_cannot_be_skipped_if_an_image_has_none(tmp_path, number):
    root = coco(tmp_path, [(0, CAT, GOOD), (1, CAT, GOOD)], sizes=((40, 50), (40, 50)))
    rewrite(root, lambda content: content["images"][1].update(id=number))
    with pytest.raises(UserError, match=r"instances_tiny\.json: image id 101"):
        build(root, on_error="skip")
    # An image without objects is not kept here, and the object is named.
    assert "101" in build(root, on_error="skip", min_image_area=1).skipped[0]


def test_objects_of_a_removed_image_can_be_skipped(tmp_path):
    root = coco(tmp_path, [(0, CAT, GOOD), (1, CAT, GOOD)])
    assert "image id 101" in build(root, on_error="skip").skipped[0]


def test_all_images_of_a_repeated_id_are_left_out(tmp_path):
    """Nobody knows to which of them the objects belong."""
    root = coco(tmp_path, [(0, CAT, GOOD), (2, CAT, GOOD)], sizes=((40, 50),) * 3)
    rewrite(root, lambda content: content["images"][1].update(id=100.0))
    (problem,) = build(root, on_error="skip").skipped
    assert "0.jpg" in problem
    assert "1.jpg" in problem
    assert list(shards.labels(root / "out", "tiny")) == ["2"]


@pytest.mark.parametrize("name", ["0.jpg", "./0.jpg", "tiny/0.jpg", "a/../0.jpg", "0.JPG"])
def test_file_that_is_listed_twice_is_left_out_in_any_spelling(tmp_path, name):
    """Each of the two entries has a part of its objects."""
    bad = {"segmentation": []}
    root = coco(tmp_path, [(0, CAT, GOOD), (1, CAT, GOOD), (1, CAT, GOOD, bad)], ((40, 50),) * 3)
    rewrite(root, lambda content: content["images"][1].update(file_name=name))
    with pytest.raises(UserError, match=r"0\.jpg: id '0' occurs twice"):
        build(root)
    build(root, on_error="skip")
    assert list(shards.labels(root / "out", "tiny")) == ["2"]


COMPOSED, DECOMPOSED = "caf\u00e9 1", "cafe\u0301 1"


@pytest.mark.parametrize(
    "name",
    [
        f"{DECOMPOSED}.JPG",
        f"{COMPOSED}.jpg",
        f"tiny/{COMPOSED}.jpg",
        f"../tiny/{COMPOSED}.JPG",
        f"{{root}}/tiny/{DECOMPOSED}.JPG",
        f"{{link}}/tiny/{COMPOSED}.jpg",
        "caf%C3%A9%201.jpg",
        "..\\tiny\\caf%C3%A9%201.jpg",
    ],
)
def test_file_is_found_by_the_names_that_tools_write(tmp_path, name):
    root, link = tmp_path / "root", tmp_path / "link"
    link.symlink_to(root)
    coco(root, [(0, CAT, GOOD)])
    (root / "tiny" / "0.jpg").rename(root / "tiny" / f"{DECOMPOSED}.JPG")
    name = name.format(root=root, link=link)
    rewrite(root, lambda content: content["images"][0].update(file_name=name))
    build(link)
    assert list(shards.labels(root / "out", "tiny")) == [COMPOSED]


def test_percent_sign_in_the_name_of_a_file_is_no_code(tmp_path):
    root = coco(tmp_path, [(0, CAT, GOOD)], sizes=((40, 50), (40, 50)))
    for k, name in enumerate(("a%20b.jpg", "a b.jpg")):
        (root / "tiny" / f"{k}.jpg").rename(root / "tiny" / name)
        rewrite(root, lambda c, k=k, name=name: c["images"][k].update(file_name=name))
    build(root)
    assert list(shards.labels(root / "out", "tiny")) == ["a b", "a%20b"]


@pytest.mark.parametrize(
    "name",
    ["/data/local-files/?d=imgs/0.jpg", "x/tiny/0.jpg", "C:\\tiny\\0.jpg", "\ud800.jpg", "", 1],
)
def test_name_that_is_not_in_the_folder_is_named_with_the_folder(tmp_path, name):
    root = coco(tmp_path, [(0, CAT, GOOD)])
    rewrite(root, lambda content: content["images"][0].update(file_name=name))
    with pytest.raises(UserError, match=rf"image id 100: .*{root / 'tiny'}"):
        build(root)


def test_category_with_objects_is_a_class_also_if_others_are_its_parts(tmp_path):
    categories = [
        {"id": 1, "name": "vehicle", "supercategory": ""},
        {"id": 2, "name": "car", "supercategory": "vehicle"},
    ]
    expected = {(): ("background", "car"), (1, 2): ("background", "vehicle", "car")}
    for used, names in expected.items():
        assert own_classes(tmp_path, categories, used).label_set.names == names
    # It is used in one split only, but both must have the same classes.
    for split, number in (("tiny", 2), ("held_out", 1)):
        own(tmp_path, categories, [(0, number, GOOD)], split=split)
    (tmp_path / "held_out" / "0.jpg").rename(tmp_path / "held_out" / "1.jpg")
    rewrite(tmp_path, lambda c: c["images"][0].update(file_name="1.jpg"), "held_out")
    manifest = build(tmp_path, splits=["tiny", "held_out"], categories="own")
    assert manifest.names == ("background", "vehicle", "car")


def test_rules_count_what_they_leave_out(tmp_path):
    root = coco(
        tmp_path,
        [
            (0, CAT, rectangle(0, 0, 50, 40)),
            (1, CAT, GOOD),
            (2, CAT, rectangle(0, 0, 50, 16)),
            (2, DOG, rectangle(0, 16, 50, 30)),
        ],
        sizes=((40, 50),) * 4,
    )
    manifest = build(root, min_image_area=1000, min_object_area=750)
    counts = manifest.arguments["images_left_out"]["tiny"]
    assert list(counts.values()) == [1, 1, 1]
    assert list(counts)[1:] == ["--min_object_area=750", "--min_image_area=1000"]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_rule_that_leaves_no_image_is_named_with_the_largest_object(tmp_path, on_error):
    objects = [(0, CAT, GOOD), (1, DOG, rectangle(0, 0, 20, 21))]
    root = coco(tmp_path, objects, sizes=((40, 50), (40, 50)))
    with pytest.raises(UserError, match=r"'tiny'.*--min_image_area=1000.*420 pixels \(1\.jpg\)"):
        build(root, min_image_area=None, on_error=on_error)


def test_file_names_with_folders_and_foreign_separators_are_found(tmp_path):
    names = ("a/0.jpg", "b\\0.jpg", "tiny/c.jpg")
    for name in ("a/0.jpg", "b/0.jpg", "c.jpg"):
        folders.image(tmp_path / "tiny" / name, size=(50, 40))

    def change(content):
        for entry, name in zip(content["images"], names, strict=True):
            entry["file_name"] = name

    root = rewrite(coco(tmp_path, [(0, CAT, GOOD)], sizes=((40, 50),) * 3), change)
    build(root)
    assert list(shards.labels(root / "out", "tiny")) == ["a/0", "b/0", "c"]


def test_layouts_of_other_tools_are_named_by_flags(tmp_path):
    """Roboflow writes the JSON beside the images, Label Studio both into one folder."""
    root = own(tmp_path)
    roboflow = root / "tiny" / "_annotations.coco.json"
    (root / "annotations" / "instances_tiny.json").rename(roboflow)
    (root / "annotations").rmdir()
    arguments = {"splits": ["tiny"], "categories": "own"}
    build_coco.build(
        root, root / "a", annotation_file="{split}/_annotations.coco.json", **arguments
    )
    content = json.loads(roboflow.read_text())
    content["images"][0]["file_name"] = "tiny/0.jpg"
    (root / "result.json").write_text(json.dumps(content))
    roboflow.unlink()
    build_coco.build(root, root / "b", annotation_file="result.json", images=".", **arguments)
    one, two = (shards.labels(root / name, "tiny") for name in "ab")
    np.testing.assert_array_equal(one["0"], two["tiny/0"])
    assert one["0"].sum() == 800
