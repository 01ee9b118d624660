"""What is concluded from the scores, on numbers that are given."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.study import pictures, results, statistics
from kseg.study.results import Difference, Module
from kseg.study.statistics import Interval
from tests.data import shards

LABELS = LabelSet(("ground", "road"), ((0, 0, 0), (255, 255, 255)))
NOISE, HIGHER, LOWER = Interval(-0.01, 0.02), Interval(0.01, 0.03), Interval(-0.03, -0.01)


def sentence(over_seeds, over_images, mean=0.02):
    seeds = (1, 2) if over_seeds else (1,)
    values = (mean,) * len(seeds)
    zeros = np.zeros((len(seeds), 2))
    return Difference("ksac", "aspp", seeds, values, over_seeds, over_images, zeros).sentence


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((NOISE, HIGHER), "The difference of ksac to aspp is within noise: its interval over seeds "
         "contains 0."),
        ((HIGHER, NOISE), "The difference of ksac to aspp is within noise: its interval over "
         "images contains 0."),
        ((NOISE, NOISE), "The difference of ksac to aspp is within noise: its intervals over seeds "
         "and over images contain 0."),
        ((HIGHER, HIGHER), "ksac is 2.0 points higher than aspp, and neither interval contains 0."),
        ((LOWER, LOWER, -0.02), "ksac is 2.0 points lower than aspp, and neither interval contains "
         "0."),
        ((None, NOISE), "The difference of ksac to aspp is within noise: its interval over images "
         "contains 0. With one seed there is no interval over seeds."),
        ((None, HIGHER), "ksac is 2.0 points higher than aspp, and the interval does not contain "
         "0. With one seed there is no interval over seeds."),
    ],
)  # fmt: skip
def test_a_sentence_says_whether_a_difference_is_within_noise(given, expected):
    assert sentence(*given) == expected


@pytest.mark.parametrize(
    ("names", "start"),
    [
        (["roads_x_aspp", "roads_x_ksac"], "roads_x_"),
        (["roads_aspp", "roads_aspp_dice"], "roads_"),
        (["a", "b"], ""),
        (["roads_aspp"], ""),
        (["ab", "abc"], ""),
    ],
)
def test_names_are_shortened_at_an_underscore(names, start):
    assert results.common_start(names) == start


class Predictions:
    """Predictions of two images of 4 pixels that are given as rows."""

    def __init__(self, *maps, labels=((0, 0, 1, 1), (0, 1, 1, 1))):
        self.maps = [np.array([row], np.uint8) for row in maps]
        self.names = [f"image {number}" for number in range(len(maps))]
        self.counts = np.array(
            [
                [
                    [np.sum(label == k), np.sum(found == k), np.sum((label == k) & (found == k))]
                    for k in (0, 1)
                ]
                for label, found in zip(np.array(labels), self.maps, strict=True)
            ]
        ).swapaxes(1, 2)

    def prediction(self, number):
        return self.maps[number]


def measured(predictions, miou=0.5, curve=()):
    folder = SimpleNamespace(label_set=LABELS)
    scores = SimpleNamespace(miou=miou, curve=list(curve))
    run = SimpleNamespace(folder=folder)
    return results.Measured(run, scores, predictions, ())


@pytest.fixture
def modules():
    first = Predictions((0, 0, 1, 1), (0, 1, 1, 1))
    second = Predictions((0, 0, 1, 0), (0, 1, 1, 1))
    third = Predictions((0, 1, 1, 0), (0, 1, 1, 0))
    return [
        Module(f"roads_{name}", name, {1: measured(found)})
        for name, found in (("a", first), ("b", second), ("c", third))
    ]


def test_disagreement_is_the_fraction_of_pixels_that_do_not_have_one_prediction(modules):
    assert pictures.disagreement(modules).tolist() == [0.5, 0.25]
    assert pictures.disagreement(modules[:2]).tolist() == [0.25, 0.0]


def test_the_sheet_begins_with_the_largest_disagreement(modules, tmp_path):
    examples = [
        (shards.encoded(np.full((1, 4, 3), level, np.uint8)), np.zeros((1, 4), np.uint8))
        for level in (60, 120)
    ]
    shards.write(tmp_path, "val", examples, shards=1, label_set=LABELS)
    for module in modules[:2]:
        module.first.predictions.maps.reverse()  # Now only the second image differs.
    shown = []

    def sheet(rows, titles, **options):
        shown.append((rows, titles, options["row_titles"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "contact_sheet", sheet)
        pictures.disagreement_sheet(modules[:2], tmp_path, "val", count=1)
    ((rows, titles, row_titles),) = shown
    assert titles == ["image", "a", "b", "label"]
    assert row_titles == ["image 1: 25.0% of the pixels differ"]
    image, first, second, label = rows[0]
    assert (image == 120).all() and (label == 0).all()
    assert first[0, :, 0].tolist() == [0, 0, 255, 255]
    assert second[0, :, 0].tolist() == [0, 0, 255, 0]


def test_differences_are_paired_by_seed():
    same = Predictions((0, 0, 1, 1), (0, 1, 1, 1))
    first = Module("x_a", "a", {s: measured(same, score) for s, score in ((1, 0.5), (2, 0.7))})
    other = Module("x_b", "b", {s: measured(same, score) for s, score in ((2, 0.8), (3, 0.1))})
    (difference,) = results.differences([first, other])
    assert difference.seeds == (2,) and difference.values == pytest.approx((0.1,))
    assert difference.over_seeds is None and difference.over_images == (0, 0)
    stranger = Module("x_c", "c", {4: measured(same)})
    assert results.differences([first, stranger]) == []


def test_the_bootstrap_is_paired_and_averaged_over_the_seeds(modules):
    first, _, third = modules
    (difference,) = results.differences([first, third])
    # All predictions of the first module are right. The IoU of c is 1/3 on image 0 for both
    # classes; on image 1, 1/2 for ground and 2/3 for road; on both, 2/5 and 3/6.
    by_draw = {(2, 0): 1 / 3, (0, 2): (1 / 2 + 2 / 3) / 2, (1, 1): (2 / 5 + 3 / 6) / 2}
    weights = statistics.bootstrap_weights(2)
    expected = [by_draw[tuple(draw)] - 1 for draw in weights.tolist()]
    assert difference.over_images == pytest.approx(tuple(np.percentile(expected, (2.5, 97.5))))
    np.testing.assert_allclose(difference.classes, [[2 / 5 - 1, 3 / 6 - 1]])


def test_a_curve_has_the_steps_that_all_seeds_have():
    found = Predictions((0, 0, 1, 1), (0, 1, 1, 1))
    curves = ([(10, 0.2), (20, 0.4), (30, 0.5)], [(10, 0.4), (20, 0.5)])
    runs = {seed: measured(found, curve=points) for seed, points in enumerate(curves)}
    steps, means, deviations = results.curve(Module("x_a", "a", runs))
    assert steps == [10, 20] and means == pytest.approx([0.3, 0.45])
    assert deviations == pytest.approx([0.02**0.5, 0.005**0.5])
    assert results.curve(Module("x_a", "a", {0: runs[0]}))[2] == [0, 0, 0]


def test_runs_that_were_not_measured_alike_are_refused(monkeypatch):
    monkeypatch.setattr(results, "read_run", lambda *_: SimpleNamespace(measured={"miou": 1}))
    monkeypatch.setattr(results, "Predictions", lambda path: None)
    monkeypatch.setattr(results, "protocol_differences", lambda runs: ["a: flip", "b: plain"])
    folder = SimpleNamespace(path=Path("runs"), label_set=LABELS)
    run = SimpleNamespace(stem="a", name="a, seed 1", seed=1, folder=folder)
    with pytest.raises(UserError, match="a: flip; b: plain"):
        results.read_modules([run])


def test_a_mean_over_a_class_without_labelled_pixels_is_refused(monkeypatch):
    measured = {"miou": 0.5, "mean_over": {"classes": [LABELS.names[0]], "iou": None}}
    monkeypatch.setattr(results, "read_run", lambda *_: SimpleNamespace(measured=measured))
    folder = SimpleNamespace(path=Path("runs"), label_set=LABELS)
    run = SimpleNamespace(stem="a", name="a, seed 1", seed=1, folder=folder)
    with pytest.raises(UserError, match=f"--mean_over.*labelled pixels.*{LABELS.names[0]}"):
        results.read_modules([run])
