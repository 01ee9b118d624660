"""The table of a conversion, and its note on masks that probably mean something else."""

import dataclasses

import pytest

from kseg.data.datasets import VOC, voc_palette
from kseg.data.manifests import Manifest, Shard
from kseg.data.scene_bands import SceneBands
from tfrecords_tools import histogram_warnings, summary


def _report(*counts):
    """Returns the lines for splits with these numbers of ground, road and ignored pixels."""
    manifests = [
        Manifest(
            split=f"split{number}",
            names=("ground", "road"),
            colours=((0, 0, 0), (255, 255, 255)),
            ignore_label=255,
            shards=(Shard("a", 1, 1000, ""),),
            pixels_per_class=pixels[:2],
            pixels_ignored=pixels[2],
            tool="",
            arguments={},
        )
        for number, pixels in enumerate(counts)
    ]
    return summary.report(manifests, "out").splitlines()


def test_each_split_has_a_column_of_percentages():
    lines = _report((30, 60, 10), (1, 1, 0))
    assert [line.split() for line in lines[6:9]] == [
        ["0", "ground", "30.000", "50.000"],
        ["1", "road", "60.000", "50.000"],
        ["255", "(ignored)", "10.000", "-"],
    ]
    assert lines[9:] == ["", "written to out"]


@pytest.mark.parametrize(
    ("pixels", "present", "ignored", "rules"),
    [
        ((70, 0, 30), "'ground'", "30.000 %", "`0 -> 0` and `255 -> 1`"),
        ((0, 5, 15), "'road'", "75.000 %", "`1 -> 1` and `255 -> 0`"),
        ((9, 0, 0), "'ground'", None, "`0 -> 0` and `255 -> 1`"),
        ((0, 0, 9), "no pixel", "100.000 %", "`0 -> 0` and `255 -> 1`"),
    ],
)
def test_note_on_a_split_of_one_class_gives_a_remedy(pixels, present, ignored, rules):
    (note,) = (line for line in _report((1, 1, 1), pixels) if line.startswith("warning: in"))
    assert "'split1'" in note and present in note
    assert ignored in note if ignored else "%" not in note
    assert "--remap" in note and rules in note


def _warnings(*counts):
    """Returns the warnings about splits with these numbers of pixels; the last are ignored."""
    names = tuple(f"class {label}" for label in range(len(counts[0]) - 1))
    manifests = [
        Manifest(
            split=f"split{number}",
            names=names,
            colours=voc_palette(len(names)),
            ignore_label=255,
            shards=(),
            pixels_per_class=tuple(pixels[:-1]),
            pixels_ignored=pixels[-1],
            tool="",
            arguments={},
        )
        for number, pixels in enumerate(counts)
    ]
    return histogram_warnings.warnings(manifests)


@pytest.mark.parametrize(
    ("counts", "texts"),
    [
        ([(990, 10, 0)], ("'split0'", "99.000 %", "'class 0'")),
        ([(10, 10, 30)], ("'split0'", "60.000 %", "255")),
        ([(50, 50, 0, 0), (50, 40, 0, 0)], ("'class 2'", "order")),
        ([(80, 20, 0), (25, 75, 0)], ("'class 0'", "'class 1'", "'split0'", "'split1'")),
        ([(70, 20, 10, 0), (70, 10, 20, 0)], ("'class 1'", "'class 2'", "exchanged")),
    ],
)
def test_histogram_of_an_error_has_one_warning(counts, texts):
    (warning,) = _warnings(*counts)
    assert all(text in warning for text in texts), warning


@pytest.mark.parametrize(
    "counts",
    [
        [(970, 30, 900)],
        [(80, 20, 0), (70, 30, 0)],
        [(9000, 990, 10, 0), (9000, 10, 990, 0)],  # One of the two is below half a percent.
        [(50, 20, 10, 8, 12, 0), (50, 10, 20, 14, 6, 0)],  # All small classes differ as much.
    ],
)
def test_histogram_without_an_error_has_no_warning(counts):
    assert _warnings(*counts) == []


def test_part_of_a_published_set_may_lack_classes():
    manifest = dataclasses.replace(
        _manifest(VOC.names), pixels_per_class=(50, 50, *[0] * 19), pixels_ignored=0
    )
    assert histogram_warnings.warnings([manifest]) == []


def test_the_labels_of_scenes_are_not_called_masks():
    """They may be vectors, which no other tool converts."""
    manifest = dataclasses.replace(
        _manifest(("ground", "road")),
        pixels_per_class=(9, 0),
        scene_bands=SceneBands(bands=(1, 2, 3), limits=((0, 255),) * 3, dtype="uint8"),
    )
    found = histogram_warnings.warnings([manifest])
    assert "labels of these scenes" in found[0] and not any("mask" in text for text in found)


def _manifest(names):
    return Manifest("a", names, voc_palette(len(names)), 255, (), (), 0, "", {})
