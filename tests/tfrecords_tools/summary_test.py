"""The table of a conversion, and its note on masks that probably mean something else."""

import pytest

from kseg.data.records import Manifest, Shard
from tfrecords_tools import summary


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
    (note,) = (line for line in _report((1, 1, 1), pixels) if line.startswith("note: "))
    assert "'split1'" in note and present in note
    assert ignored in note if ignored else "%" not in note
    assert "--remap" in note and rules in note
