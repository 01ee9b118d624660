"""The measurement of the input, at a tiny size; times are measured and not judged."""

import numpy as np
import pytest

from kseg import errors
from kseg.benchmark import input as benchmark
from kseg.benchmark import input_records, runner
from kseg.data import records
from tests.data import shards


@pytest.fixture
def folder(tmp_path):
    return shards.write(tmp_path / "records", "val", [shards.numbered(n) for n in range(5)])


def run(**arguments):
    return runner.run(benchmark.BENCHMARK, repetitions=1, **arguments)


def test_measures_every_stage_and_what_limits_the_input(folder, capsys):
    rows = run(shape=(2, 17, 17), data_dir=str(folder), split="val", images=6)
    assert [row.stage for row in rows] == list(benchmark.STAGES)
    for row in rows:
        assert min(row.images_per_second) > 0 and min(row.cpu_ms) > 0
        assert row.ratio > 0 and row.cpu_ratio > 0
        assert "6 records" in row.setting and f"'val' of {folder}" in row.setting
    limit = next(row for row in rows if row.stage == "decode")
    assert limit.ratio == limit.cpu_ratio == 1
    out = capsys.readouterr().out
    assert "The input is limited by" in out and "ours over textbook" in out


def test_without_the_stage_decode_there_are_no_ratios(folder, capsys):
    (row,) = run(only=("ours",), shape=(2, 17, 17), data_dir=str(folder), split="val", images=4)
    assert (row.ratio, row.cpu_ratio) == (None, None)
    assert "The input is limited by" not in capsys.readouterr().out


def test_the_conclusion_names_the_largest_part():
    def row(stage, rate, cpu):
        return benchmark.Row(
            setting="", stage=stage, images_per_second=(rate,) * 3, cpu_ms=(cpu,) * 3,
            ratio=None, cpu_ratio=None,
        )  # fmt: skip

    rows = [row("parse", 9000, 0.1), row("decode", 1000, 2.0), row("ours", 400, 5.0)]
    text = benchmark.conclusion(rows)
    assert "limited by augmenting and batching" in text
    assert "reading and parsing 2 %, decoding 40 %, augmenting and batching 58 %" in text
    assert "reading and parsing cost 5.0 % of decoding" in text
    assert "2.5 ms per image" in text
    slow = [row("parse", 100, 9.0), *rows[1:2], row("ours", 80, 12.0), row("textbook", 40, 24.0)]
    text = benchmark.conclusion(slow)
    assert "limited by reading and parsing" in text
    assert "ours over textbook: 2.00 times (by CPU time 2.00)" in text


def test_a_damaged_record_is_named(folder):
    path = sorted(folder.glob("val-*.tfrecord"))[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(errors.UserError, match=f"{path.name}, record .*check_records"):
        run(only=("read",), shape=(2, 17, 17), data_dir=str(folder), split="val", images=4)


def test_every_stage_reads_all_images(folder):
    input_records.write(folder, input_records.stored(str(folder), "val", 9), 12)
    stages = benchmark._Stages(str(folder), 4, (17, 17), 2, 12)
    for name in benchmark.STAGES:
        batches = {"read": 1, "parse": 1, "ours": 3, "textbook": 3}.get(name, 12)
        assert int(benchmark._pass(getattr(stages, name)())()) == batches, name
    sizes = {
        name: [tuple(np.shape(part)) for part in next(iter(getattr(stages, name)()))]
        for name in ("ours", "textbook")
    }
    assert sizes["ours"] == [(4, 17, 17, 3), (4, 17, 17)]
    assert sizes["textbook"] == [(4, 17, 17, 3), (4, 17, 17, 1)]


def test_a_split_may_be_in_a_subfolder_of_the_records(folder):
    examples = input_records.stored(str(folder.parent), f"{folder.name}/val", 9)
    assert examples == input_records.stored(str(folder), "val", 9) and len(examples) == 5


def test_drawn_pictures_are_as_large_as_photographs_of_voc(monkeypatch):
    monkeypatch.setattr(input_records, "_PICTURES", 3)
    for serialized in input_records.drawn():
        example = records.decode_example(serialized)
        assert example["image"].shape == (375, 500, 3) and example["label"].shape == (375, 500)
        assert {0, 255} < set(np.unique(example["label"]))
        assert 60_000 < len(serialized) < 130_000


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"only": ("write",)}, "--only.*write"),
        ({"images": 7}, "images.*7"),
        ({"data_dir": "nowhere"}, "nowhere"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments, name):
    with pytest.raises(errors.UserError, match=name):
        run(**arguments)
