"""The comparison of layers, at a tiny size; times are measured and not judged."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf

from kseg.benchmark import layers, runner, timing

TINY = [
    layers.Case("ksac", (2, 5, 5, 8), (1, 2, 3, 4), filters=4),
    layers.Case("vortex", (2, 5, 5, 8), filters=4),
    layers.Case("lkspp", (2, 5, 5, 8), filters=4),
    layers.Case("gcn", (2, 5, 5, 8), filters=4),
    layers.Case("ppm", (2, 5, 5, 8), filters=4),
]
PARTS = {
    "ksac": ("shared conv", "one rate", "more rates", "KSAC of more", "module"),
    "vortex": ("poolings", "module"),
    "lkspp": ("largest k", "module"),
    "gcn": ("module",),
    "ppm": ("module",),
}
# The forms of the whole module; those that compute the same are compared.
FORMS = {
    "ksac": ("plain", "keras", "fast"),
    "vortex": ("plain", "fast"),
    "lkspp": ("plain", "fast"),
    "gcn": ("conv", "stack", "fast"),
    "ppm": ("fast",),
}


@pytest.fixture
def fixed_memory(monkeypatch):
    monkeypatch.setattr(timing, "peak_memory", lambda *_: (123.0, 4.0))


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.module)
def test_compares_every_part_forward_and_backward(case, fixed_memory):
    rows = runner.run(layers.BENCHMARK, repetitions=1, cases=[case])
    assert list(dict.fromkeys(row.part for row in rows)) == list(PARTS[case.module])
    for row in rows:
        assert row.setting == str(case)
        assert row.ratio > 0
        # The pooling of TensorFlow adds and divides but does not multiply.
        assert (row.multiply_adds > 0) == (row.part != "poolings" or row.form == "fast")
        assert row.difference is None or row.difference < 1e-4
        assert (row.parameters is None) == (row.part != "module")
        assert (row.memory_mib == 123.0) == (
            row.part == "module" and row.passes == "forward+backward"
        )
    whole = [row for row in rows if row.part == "module"]
    assert tuple(dict.fromkeys(row.form for row in whole)) == FORMS[case.module]
    for row in whole:
        is_compared = row.form != "fast" and case.module != "gcn"
        assert (row.difference is not None) == is_compared


def test_the_ratio_of_more_rates_is_their_time_over_that_of_three(monkeypatch):
    case = layers.Case("ksac", (2, 5, 5, 8), (1, 2, 3, 4, 5), filters=4)
    parts, _ = layers.MODULES["ksac"](case)
    monkeypatch.setitem(layers.MODULES, "ksac", lambda case: ([], {}))
    monkeypatch.setattr(layers, "whole_module", lambda *_: parts[-1])
    times = {"3": (79.0, 81.0, 83.0), "5": (110.0, 112.0, 114.0)}
    monkeypatch.setattr(timing, "interleaved_ms", lambda calls, repetitions: times)
    rows = runner.run(layers.BENCHMARK, repetitions=1, cases=[case])
    rows = [row for row in rows if row.passes == "forward"]
    assert [(row.part, row.form) for row in rows] == [("KSAC of more", "3"), ("KSAC of more", "5")]
    assert [round(row.ratio, 2) for row in rows] == [1.0, 1.38]


def test_only_and_shape_choose_modules_and_sizes(fixed_memory):
    rows = runner.run(layers.BENCHMARK, repetitions=1, only=("vortex",), shape=(1, 6, 6, 4))
    assert {row.setting for row in rows} == {"vortex: 6x6x4 -> 256, batch 1"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.module)
def test_every_form_computes_in_the_precision_of_the_case(case, dtype):
    case = dataclasses.replace(case, dtype=dtype)
    parts, modules = layers.parts_of(case)
    for part in [*parts, layers.whole_module(case, modules)]:
        for name, form in part.forms.items():
            results = timing.compiled(form.call, form.tensors, backward=True)()
            outputs, gradients = results[: -len(form.tensors)], results[-len(form.tensors) :]
            assert {output.dtype for output in outputs} == {tf.as_dtype(dtype)}, (part.name, name)
            for tensor, gradient in zip(form.tensors, gradients, strict=True):
                assert gradient.dtype == tensor.dtype, (part.name, name)
                assert np.isfinite(tf.cast(gradient, "float32")).all(), (part.name, name)
    for module in modules.values():
        assert {weight.dtype for weight in module.trainable_variables} == {"float32"}


@pytest.mark.slow
def test_every_form_is_measured_in_half_precision_and_by_xla(fixed_memory):
    rows = runner.run(
        layers.BENCHMARK,
        repetitions=1,
        cases=[TINY[1]],
        precision=("bfloat16",),
        jit_compile="true",
    )
    assert {(row.dtype, row.xla) for row in rows} == {("bfloat16", True)}
    differences = [row.difference for row in rows if row.difference is not None]
    assert 0 < max(differences) < 0.1  # Rounded to eight bits, and so not equal.


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_module_is_measured_in_a_process_of_its_own():
    case = layers.Case("vortex", (1, 5, 5, 8), filters=4)
    peak, added = timing.peak_memory(layers.step, case, "fast", False)
    assert 0 < added < peak < 3000
