"""The table, the JSON values and the CSV of a confusion matrix."""

import csv

import numpy as np
import pytest

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.inference import report
from kseg.recipe.metrics import scores

LABELS = LabelSet(("background", "cat", "dog", "ufo"), ((0, 0, 0),) * 4)
#        predicted 0   1   2  3
MATRIX = [[90, 5, 5, 0], [10, 30, 0, 0], [0, 20, 20, 0], [0, 0, 0, 0]]


def lines_of(label_set, result):
    return report.table(label_set, result).splitlines()


def test_the_miou_without_background_is_the_mean_of_the_other_classes_present():
    result = scores(MATRIX)
    expected = (30 / 65 + 20 / 45) / 2
    assert report.miou_without_background(LABELS, result) == pytest.approx(expected)
    assert f"mIoU without background  {expected:.4f}" in lines_of(LABELS, result)
    assert report.report(LABELS, result)["miou_without_background"] == pytest.approx(expected)
    streets = LabelSet(("road", "car", "sky", "ufo"), LABELS.colours)
    assert "background" not in report.table(streets, result)
    assert "miou_without_background" not in report.report(streets, result)


def test_with_two_classes_the_iou_of_the_second_is_shown_by_name():
    roads = LabelSet(("background", "road"), ((0, 0, 0),) * 2)
    (line,) = [line for line in lines_of(roads, scores([[6, 2], [1, 3]])) if "road IoU" in line]
    assert line.split() == ["road", "IoU", "0.5000"]
    assert report.report(roads, scores([[6, 2], [1, 3]]))["foreground_iou"] == 0.5
    assert "cat IoU" not in report.table(LABELS, scores(MATRIX))
    assert "foreground_iou" not in report.report(LABELS, scores(MATRIX))


def test_boundary_and_internal_accuracy_are_shown_only_if_they_were_measured():
    assert "boundary" not in report.table(LABELS, scores(MATRIX))
    assert "boundary_accuracy" not in report.report(LABELS, scores(MATRIX))
    near = np.zeros((4, 4), int)
    near[0, :2] = 3, 1
    result = scores(MATRIX, near)
    lines = [line.split() for line in lines_of(LABELS, result)]
    assert ["boundary", "accuracy", "0.7500"] in lines
    assert ["internal", "accuracy", f"{137 / 176:.4f}"] in lines
    assert report.report(LABELS, result)["boundary_accuracy"] == 0.75
    nowhere = scores(MATRIX, np.zeros((4, 4)))
    assert report.report(LABELS, nowhere)["boundary_accuracy"] is None
    assert "boundary accuracy           n/a" in report.table(LABELS, nowhere)


def test_the_most_frequent_confusions_come_first():
    result = scores(MATRIX)
    assert report.confusions(LABELS, result, most=2) == [
        "dog predicted as cat: 20 pixels, 50.0% of the class",
        "cat predicted as background: 10 pixels, 25.0% of the class",
    ]
    assert len(report.confusions(LABELS, result, most=99)) == 4
    assert report.confusions(LABELS, scores(np.diag([1, 2, 3, 4]))) == []


def test_the_mean_over_some_classes_is_not_known_without_labelled_pixels_of_one():
    mean, line = report.mean_over(LABELS, scores(MATRIX), ["cat", "dog"])
    assert mean == pytest.approx((30 / 65 + 20 / 45) / 2)
    assert line == f"mean IoU over cat, dog: {mean:.4f}"
    mean, line = report.mean_over(LABELS, scores(MATRIX), ["cat", "ufo"])
    assert mean is None
    assert "ufo" in line.split("n/a")[1] and "cat" not in line.split("n/a")[1]
    report.check_classes(LABELS, ["cat", "ufo"])
    with pytest.raises(UserError, match="`--mean_over`.*Received: sun"):
        report.check_classes(LABELS, ["cat", "sun"])


def test_the_csv_holds_iou_pixels_and_confusions_of_each_class():
    rows = list(csv.reader(report.csv_text(LABELS, scores(MATRIX)).splitlines()))
    assert rows[0][:5] == ["id", "class", "iou", "pixels", "as background"]
    assert rows[2][:2] == ["1", "cat"] and float(rows[2][2]) == 30 / 65
    assert rows[2][3:] == ["40", "10", "30", "0", "0"]
    assert rows[4] == ["3", "ufo", "", "0", "0", "0", "0", "0"]


def test_the_csv_holds_the_scores_over_all_classes_in_rows_without_an_id():
    near = np.zeros((4, 4), int)
    near[0, :2] = 3, 1
    result = scores(MATRIX, near)
    rows = list(csv.DictReader(report.csv_text(LABELS, result).splitlines()))
    totals = {row["class"]: float(row["iou"]) for row in rows if not row["id"]}
    assert totals == {
        "mIoU": result.miou,
        "mIoU without background": report.miou_without_background(LABELS, result),
        "pixel accuracy": result.pixel_accuracy,
        "boundary accuracy": 0.75,
        "internal accuracy": result.internal_accuracy,
    }
    assert all(None not in row.values() and row["pixels"] == "" for row in rows[4:])
    lines = report.table(LABELS, result).splitlines()
    assert [line.split("  ")[0] for line in lines[5:10]] == list(totals)
    roads = LabelSet(("background", "road"), ((0, 0, 0),) * 2)
    assert ",road IoU,0.5,,,\n" in report.csv_text(roads, scores([[6, 2], [1, 3]]))
