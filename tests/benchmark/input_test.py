"""The measurement of input, at a tiny size; times are measured and not judged."""

import json

import numpy as np
import pytest

from kseg import errors
from kseg.benchmark import input as benchmark
from kseg.benchmark import input_records
from kseg.data import records
from tests.data import shards


@pytest.fixture
def folder(tmp_path):
    return shards.write(tmp_path / "records", "val", [shards.numbered(one) for one in range(5)])


def test_measures_every_stage_and_says_what_limits(folder, tmp_path, capsys):
    path = tmp_path / "rows.json"
    rows = benchmark.run(1, str(path), (), (2, 17, 17), str(folder), "val", images=6)
    assert [row.stage for row in rows] == list(benchmark.STAGES)
    for row in rows:
        assert min(row.images_per_second) > 0 and min(row.cpu_ms) > 0
        assert row.ratio > 0 and row.cpu_ratio > 0
    limit = next(row for row in rows if row.stage == "decode")
    assert limit.ratio == limit.cpu_ratio == 1
    out = capsys.readouterr().out
    assert "limits the input" in out and "ours over textbook" in out
    assert "6 records" in out and f"'val' of {folder}" in out
    assert [line["stage"] for line in json.loads(path.read_text())] == list(benchmark.STAGES)


def test_chosen_stages_have_no_ratio_without_the_limit(folder, capsys):
    (row,) = benchmark.run(1, only=("ours",), shape=(2, 17, 17), data_dir=str(folder),
                           split="val", images=4)  # fmt: skip
    assert (row.ratio, row.cpu_ratio) == (None, None)
    assert "limits the input" not in capsys.readouterr().out


def test_the_verdict_names_the_largest_part():
    def row(stage, rate, cpu):
        return benchmark.Row(stage, (rate,) * 3, (cpu,) * 3, None, None)

    rows = [row("parse", 9000, 0.1), row("decode", 1000, 2.0), row("ours", 400, 5.0)]
    text = "\n".join(benchmark.verdict(rows, 8))
    assert "augmenting and batching limits the input" in text
    assert "reading and parsing 2 %, decoding 40 %, augmenting and batching 58 %" in text
    assert "reading and parsing cost 5.0 % of decoding" in text
    assert "more than 20 ms never waits" in text
    slow = [row("parse", 100, 9.0), *rows[1:2], row("ours", 80, 12.0), row("textbook", 40, 24.0)]
    text = "\n".join(benchmark.verdict(slow, 8))
    assert "reading and parsing limits the input" in text
    assert "ours over textbook: 2.00 times (by CPU time 2.00)" in text


def test_every_stage_goes_through_all_images(folder):
    input_records.write(folder, input_records.stored(str(folder), "val", 9), 12)
    setting = benchmark._Setting(str(folder), 4, (17, 17), 2, 12)
    for name, stage in benchmark.STAGES.items():
        batches = {"read": 1, "parse": 1, "ours": 3, "textbook": 3}.get(name, 12)
        assert int(benchmark._drain(stage(setting))()) == batches, name
    sizes = {
        name: [tuple(np.shape(part)) for part in next(iter(benchmark.STAGES[name](setting)))]
        for name in ("ours", "textbook")
    }
    assert sizes["ours"] == [(4, 17, 17, 3), (4, 17, 17)]
    assert sizes["textbook"] == [(4, 17, 17, 3), (4, 17, 17, 1)]


def test_drawn_pictures_are_as_large_as_photographs_of_voc(monkeypatch):
    monkeypatch.setattr(input_records, "_DRAWN", 3)
    for serialized in input_records.drawn():
        one = records.decode_example(serialized)
        assert one["image"].shape == (375, 500, 3) and one["label"].shape == (375, 500)
        assert {0, 255} < set(np.unique(one["label"]))
        assert 60_000 < len(serialized) < 130_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ("write",)}, "`--only` must hold names of read, parse, jpeg, .*'write'"),
        ({"shape": (1, 2)}, "`--shape` must be batch,height,width"),
        ({"output": "rows.txt"}, "`--output` must end in .csv or .json"),
        ({"images": 7}, "`images` must be at least a batch, 8. Received: 7"),
        ({"data_dir": "nowhere"}, "Not found: nowhere"),
    ],
)
def test_refuses_by_name(arguments, message):
    with pytest.raises(errors.UserError, match=message):
        benchmark.run(1, **arguments)
