"""The Python code in docs/ runs."""

from pathlib import Path

import keras
import pytest

from tests.documents import python_blocks

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(autouse=True)
def dtype_policy():
    yield
    keras.config.set_dtype_policy("float32")


def test_a_network_is_trained_with_a_custom_pipeline_and_a_custom_loss():
    own_data, _ = python_blocks(DOCS / "keras.md")
    variables = {}
    exec(compile(own_data, "docs/keras.md", "exec"), variables)
    assert variables["history"].history["loss"][0] > 0
    assert variables["classes"].shape == (4, 65, 65)


def test_a_layer_works_in_a_custom_network_under_mixed_precision():
    _, layer = python_blocks(DOCS / "keras.md")
    variables = {}
    exec(compile(layer, "docs/keras.md", "exec"), variables)
    assert variables["context"].dtype == "bfloat16"
    assert variables["network"].output_shape == (None, None, None, 5)


def test_extending_shows_the_network_with_the_context_in_under_sixty_lines():
    path = DOCS / "extending.md"
    variables = {"__name__": "extending"}
    for block in python_blocks(path):
        exec(compile(block, "docs/extending.md", "exec"), variables)
    assert variables["model"].get_layer(variables["model"].context).filters == 64
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) < 60
