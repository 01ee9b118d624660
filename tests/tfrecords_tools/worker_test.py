"""The processes that read samples: small, in order, and with clear errors."""

import concurrent.futures
import pathlib
import subprocess
import sys

import pytest

import tfrecords_tools
from kseg.data import masks
from kseg.data.datasets import VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders
from tfrecords_tools import worker


def _results(samples, workers, read_label=masks.CLASS_IDS):
    with worker.preparer(VOC, read_label, workers) as prepare:
        return list(prepare(samples))


def test_results_have_the_order_of_the_samples(tmp_path):
    samples = folders.pairs(tmp_path, [*"abcdefghijklmnopqrst"])
    samples[3].label.unlink()
    expected = _results(samples, 1)
    results = _results(samples, 2)
    names = [prepared.example["filename"] if prepared else None for prepared, _ in results]
    assert names == [*"abc", None, *"efghijklmnopqrst"]
    assert [found for _, found in results] == [found for _, found in expected]
    for (first, _), (second, _) in zip(expected, results, strict=True):
        assert first is second is None or first.example == second.example


def test_worker_loads_no_tensorflow(tmp_path, monkeypatch):
    samples = folders.pairs(tmp_path, [*"ab"])
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    (_, found), _ = _results(samples, 1, folders.read_without_tensorflow)
    assert found == [f"{samples[0].label}: TensorFlow is loaded"]
    results = _results(samples, 2, folders.read_without_tensorflow)
    assert [found for _, found in results] == [[], []]


def test_no_converter_loads_tensorflow_before_it_writes():
    """A worker imports the converter whose label reader it calls."""
    folder = pathlib.Path(tfrecords_tools.__file__).parent
    modules = [f"tfrecords_tools.{path.stem}" for path in sorted(folder.glob("build_*.py"))]
    assert len(modules) >= 3
    code = f"import sys, {', '.join(modules)}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_only_a_few_samples_are_in_progress_at_a_time():
    drawn = []

    def samples():
        for number in range(50):
            drawn.append(number)
            yield number

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        for taken, result in enumerate(worker.in_order(executor, 6, str, samples())):
            assert result == str(taken)
            assert len(drawn) <= taken + 6
    assert taken == 49


def test_killed_worker_ends_the_conversion_with_a_message(tmp_path):
    samples = folders.pairs(tmp_path, [*"abcdef"])
    with pytest.raises(UserError, match="2 worker.*--workers"):
        _results(samples, 2, folders.read_and_die)


@pytest.mark.parametrize("workers", [1, 2])
def test_bug_in_the_program_names_the_image(tmp_path, workers):
    samples = folders.pairs(tmp_path, [*"ab"])
    with pytest.raises(ZeroDivisionError, match="a bug in the reader") as caught:
        _results(samples, workers, folders.read_and_fail)
    assert any(str(samples[0].image) in note for note in caught.value.__notes__)


def test_few_samples_are_not_worth_processes():
    assert worker.count(None, 5) == 1
    assert worker.count(None, 10**6) >= 1
    assert worker.count(4, 3) == 3
    assert worker.count(4, 100) == 4
    with pytest.raises(UserError, match="`workers`.*-1"):
        worker.count(-1, 5)
