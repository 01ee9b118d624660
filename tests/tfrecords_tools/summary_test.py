"""The table of a conversion, and what it says of masks that seem to mean something else."""

import pytest

from kseg.data.records import Manifest, Shard
from tfrecords_tools import summary


def _report(*counts):
    """The lines for splits of as many pixels of ground, road and ignored ones."""
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


def test_shares_stand_in_a_column_a_split():
    lines = _report((30, 60, 10), (1, 1, 0))
    assert [line.split() for line in lines[6:9]] == [
        ["0", "ground", "30.000", "50.000"],
        ["1", "road", "60.000", "50.000"],
        ["255", "(ignored)", "10.000", "-"],
    ]
    assert lines[9:] == ["", "written to out"]


@pytest.mark.parametrize(
    ("pixels", "labelled", "ignored", "rules"),
    [
        ((70, 0, 30), "all labelled pixels are 'ground'", "30.000", "`0 -> 0` and `255 -> 1`"),
        ((0, 5, 15), "all labelled pixels are 'road'", "75.000", "`1 -> 1` and `255 -> 0`"),
        ((9, 0, 0), "all labelled pixels are 'ground'", None, "`0 -> 0` and `255 -> 1`"),
        ((0, 0, 9), "no pixel is labelled", "100.000", "`0 -> 0` and `255 -> 1`"),
    ],
)
def test_a_split_of_one_class_is_told_with_what_to_do(pixels, labelled, ignored, rules):
    (note,) = (line for line in _report((1, 1, 1), pixels) if line.startswith("note: "))
    share = f", and {ignored} % of all pixels are ignored (255)" if ignored else ""
    assert note.startswith(f"note: in split 'split1' {labelled}{share}; if the masks mean more")
    assert note.endswith(f"build_folder and a --remap table of rules such as {rules}")
