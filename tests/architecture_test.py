"""The house: doors open one way, programs read flags once, files stay short.

Rooms are read with `ast`, not imported, so that an import inside a function counts as well.
"""

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for folder in ("kseg", "tfrecords_tools") for path in (REPOSITORY / folder).rglob("*.py")
)
MAX_LINES = 330

# Rooms that run on TensorFlow, JAX and torch, and the rooms of ours that each may enter.
KERAS_ROOMS = {
    "kseg.layers": {"kseg.layers"},
    "kseg.backbones": {"kseg.backbones", "kseg.layers"},
    "kseg.models": {"kseg.models", "kseg.backbones", "kseg.layers"},
    "kseg.recipe": {"kseg.recipe", "kseg.layers"},
}
# What Keras has no operation for: a bilinear resize to a size known only at run time, and batch
# normalisation in one kernel. Both do without TensorFlow on other backends.
LAZY_TENSORFLOW = {"kseg/layers/resize.py", "kseg/layers/batch_norm.py"}
DATA_MAY_ENTER = {"kseg.data", "kseg.errors", "kseg.files"}
TOOLS_MAY_ENTER = {
    "tfrecords_tools", "kseg.data", "kseg.errors", "kseg.files", "kseg.visualization.pictures",
    "kseg.cli",
}  # fmt: skip


def name_of(path):
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCES}


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree):
    """Full names of all that a file imports: the module, where it is one of ours the submodule."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
    return found


def inside(module, room):
    return module == room or module.startswith(room + ".")


def ours(module):
    return module.split(".")[0] in ("kseg", "tfrecords_tools")


def files_of(room):
    return [path for name, path in MODULES.items() if inside(name, room)]


def is_program(path):
    return any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        for node in parse(path).body
    )


def strangers(path, rooms):
    """What a file imports of ours from outside the rooms it may enter."""
    return {
        module
        for module in imports(parse(path))
        if ours(module) and not any(inside(module, room) for room in rooms)
    }


def test_imports_are_found_wherever_they_stand():
    text = "import numpy as np\ndef f():\n    from kseg import data, predict\n    import a.b.c"
    assert imports(ast.parse(text)) == {"numpy", "kseg.data", "kseg.predict", "a.b.c"}


@pytest.mark.parametrize("room", KERAS_ROOMS)
def test_keras_rooms_import_keras_numpy_and_lower_rooms_only(room):
    allowed = {"keras", "numpy", *sys.stdlib_module_names}
    for path in files_of(room):
        relative = str(path.relative_to(REPOSITORY))
        foreign = {name for name in imports(parse(path)) if not ours(name)}
        foreign = {name for name in foreign if name.split(".")[0] not in allowed}
        if relative in LAZY_TENSORFLOW:
            foreign -= {"tensorflow"}
        assert not foreign, f"{relative} imports {foreign}"
        assert not strangers(path, KERAS_ROOMS[room]), relative


@pytest.mark.parametrize("relative", sorted(LAZY_TENSORFLOW))
def test_the_exceptions_import_tensorflow_inside_a_function(relative):
    tree = parse(REPOSITORY / relative)
    assert "tensorflow" in imports(tree), f"{relative} is no exception any more: drop it here"
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "tensorflow" not in imports(ast.Module(at_import, []))


def test_data_never_sees_models():
    for path in files_of("kseg.data"):
        assert not strangers(path, DATA_MAY_ENTER), path


def test_tools_see_the_records_and_nothing_of_the_networks():
    for path in files_of("tfrecords_tools"):
        assert not strangers(path, TOOLS_MAY_ENTER), path


def test_the_facts_of_the_data_sets_need_no_tensorflow():
    found = imports(parse(MODULES["kseg.data.datasets"]))
    assert {name.split(".")[0] for name in found} <= sys.stdlib_module_names | {"kseg"}
    assert imports(parse(MODULES["kseg.data"])) == set()


def test_only_programs_import_programs():
    programs = {name for name, path in MODULES.items() if is_program(path)}
    assert {"kseg.train", "kseg.evaluate", "kseg.predict", "kseg.export"} <= programs
    for name, path in MODULES.items():
        if name not in programs:
            assert not imports(parse(path)) & programs, path


def test_flags_are_defined_in_functions_and_read_in_one_place():
    for path in SOURCES:
        tree = parse(path)
        readers = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "FLAGS"]
        if name_of(path) not in ("kseg.cli", "kseg.runs.experiment"):
            assert not readers, f"{path} reads FLAGS in line {readers[0].lineno}"
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert "DEFINE_" not in ast.unparse(node), f"{path}, line {node.lineno}"


def test_importing_the_programs_defines_no_flag():
    """What a program defines at import would collide with, or leak into, every other."""
    from absl import flags

    before = set(flags.FLAGS)
    for path in SOURCES:
        if is_program(path):
            __import__(name_of(path))
    added = set(flags.FLAGS) - before
    mine = {name for name in added if ours(flags.FLAGS.find_module_defining_flag(name))}
    assert not mine


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_long_and_none_names_a_folder_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    for root in ("home", "work", "root", "Users"):
        assert f'"/{root}/' not in text and f" /{root}/" not in text
