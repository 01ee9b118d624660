"""The structure of the packages: which of them may import which, and habits of their files.

Files are read with `ast` and not imported, so that imports inside functions count as well.
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
# The 25th is the study, a program of its own: it runs the others on many flagfiles.
MAX_ENTRIES = 25

# The three rings: a package imports packages of its own ring or of a ring further in.
RINGS = {
    1: ("layers", "backbones", "models", "recipe"),
    2: (
        "errors", "files", "cli", "_version",
        "data", "runs", "inference", "visualization", "formats",
    ),
    3: (
        "train", "evaluate", "predict", "export", "compare", "import_checkpoint", "benchmark",
        "papers", "demo", "study",
    ),
}  # fmt: skip
RING_OF = {name: ring for ring, names in RINGS.items() for name in names}
# The demonstration runs the other programs and converts its scenes with the tools.
DEMO = "demo"
# The study trains and evaluates in child processes, reads scores as the comparison does, measures
# networks as the benchmark does, and checks the flags of the evaluation before it trains.
USED_BY_STUDY = {"evaluate", "compare", "benchmark"}
# The package file gives access to everything, and no module imports from it.
FACE = "kseg"

# Keras has no operation for a bilinear resize to a size that is known only at run time, none for
# batch normalisation in one kernel and none for a float32 product of half-precision matrices, and
# does not tell what XLA compiles. These files import backends inside functions.
LAZY_BACKENDS = {
    "kseg/layers/resize.py",
    "kseg/layers/batch_norm.py",
    "kseg/layers/kernels/compiled.py",
    "kseg/layers/kernels/forms.py",
}
BACKENDS = {"tensorflow", "jax", "torch"}


def module_name(path):
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree, modules=MODULES):
    """Returns the full names that a file imports: a module, or the package it comes from."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else node.module)
    return found


def package_of(module):
    """Returns the entry of kseg that a module belongs to, or the name of another package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "kseg" and len(parts) > 1 else parts[0]


def package_imports(sources):
    """Returns which packages each package imports, among those of kseg and tfrecords_tools.

    Args:
        sources: Name of a module -> its text.
    """
    graph = {}
    for module, text in sources.items():
        if module == FACE:
            continue
        package = package_of(module)
        targets = graph.setdefault(package, set())
        for imported in imports(ast.parse(text), sources):
            if imported.split(".")[0] in ("kseg", "tfrecords_tools"):
                targets.add(package_of(imported))
        targets.discard(package)
    return graph


def upward_imports(graph):
    """Returns the imports from a ring into one further out, or from a program into a program."""
    found = []
    for package, targets in graph.items():
        ring = RING_OF.get(package)
        for target in targets:
            if target == FACE:
                found.append(f"{package} imports the package file kseg/__init__.py")
            elif package == "tfrecords_tools":
                if target not in ("data", "visualization", "errors", "files", "cli"):
                    found.append(f"tfrecords_tools imports {target}")
            elif package == DEMO:
                continue
            elif target == "tfrecords_tools":
                found.append(f"{package} imports tfrecords_tools")
            elif target in ("errors", "_version"):
                continue  # They import nothing and are used everywhere.
            elif RING_OF[target] > ring:
                found.append(f"{package} imports {target}, which is further out")
            elif package == "study" and target in USED_BY_STUDY:
                continue
            elif RING_OF[target] == ring == 3:
                found.append(f"the program {package} imports the program {target}")
    return found


def circles(graph):
    """Returns the circles of imports between packages, each as a list of names."""
    found, done = [], set()

    def visit(package, path):
        if package in path:
            found.append([*path[path.index(package) :], package])
            return
        if package in done:
            return
        for target in sorted(graph.get(package, ())):
            visit(target, [*path, package])
        done.add(package)

    for package in sorted(graph):
        visit(package, [])
    return found


def texts():
    return {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}


def test_every_entry_of_the_package_belongs_to_a_ring():
    entries = {package_of(module) for module in MODULES if module.startswith("kseg.")}
    assert entries == set(RING_OF)
    visible = [
        path
        for path in (REPOSITORY / "kseg").iterdir()
        if path.name != "__pycache__" and (path.is_file() or list(path.rglob("*.py")))
    ]
    assert len(visible) <= MAX_ENTRIES, sorted(path.name for path in visible)


def test_imports_point_inwards_and_programs_do_not_import_programs():
    assert upward_imports(package_imports(texts())) == []


def test_there_are_no_circles_between_packages():
    graph = package_imports(texts())
    del graph[DEMO]
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("kseg.layers.ksac", "from kseg.runs.folder import RunFolder"),
        ("kseg.layers.ksac", "def f():\n    from kseg.inference import scorer"),
        ("kseg.backbones.pyramid", "from kseg import cli"),
        ("kseg.models.segmenter", "def f():\n    from kseg.export import export_file"),
        ("kseg.recipe.losses", "from kseg.data.datasets import VOC"),
        ("kseg.recipe.losses", "import kseg.files"),
        ("kseg.recipe.compilation", "def f():\n    from kseg.train import trainer"),
        ("kseg.data.records", "import kseg.train.trainer"),
        ("kseg.runs.folder", "from kseg import evaluate"),
        ("kseg.evaluate", "from kseg.predict import predict"),
        ("kseg.compare.table", "def f():\n    import kseg.benchmark.zoo"),
        ("kseg.study.plan", "from kseg.train import train"),
        ("kseg.compare.table", "from kseg.study import statistics"),
        ("kseg.visualization.sheets", "from tfrecords_tools import build_voc"),
        ("kseg.runs.environment", "from kseg import __version__"),
        ("kseg.runs.environment", "import kseg"),
        ("tfrecords_tools.build_voc", "from kseg.models import MODELS"),
        ("tfrecords_tools.build_voc", "def f():\n    from kseg.train import train"),
    ],
)
def test_the_check_finds_an_import_that_points_outwards(module, line):
    sources = texts()
    sources[module] = f"{sources.get(module, '')}\n{line}\n"
    assert upward_imports(package_imports(sources)) != []


def test_the_check_finds_a_circle_between_packages():
    sources = texts()
    sources["kseg.data.records"] += "\ndef f():\n    from kseg.runs.plan import Plan\n"
    graph = package_imports(sources)
    del graph[DEMO]
    assert any({"data", "runs"} <= set(circle) for circle in circles(graph))


def test_ring_1_imports_keras_and_numpy_only():
    allowed = {"keras", "numpy", "kseg", *sys.stdlib_module_names}
    for module, path in MODULES.items():
        if RING_OF.get(package_of(module)) != 1:
            continue
        relative = str(path.relative_to(REPOSITORY))
        foreign = {name.split(".")[0] for name in imports(parse(path))} - allowed
        if relative in LAZY_BACKENDS:
            foreign -= BACKENDS
        assert not foreign, f"{relative} imports {foreign}"


@pytest.mark.parametrize("relative", sorted(LAZY_BACKENDS))
def test_the_exceptions_import_backends_inside_functions(relative):
    tree = parse(REPOSITORY / relative)
    assert "tensorflow" in imports(tree), f"{relative} is no exception any more: remove it here"
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not BACKENDS & {name.split(".")[0] for name in imports(ast.Module(at_import, []))}


def test_data_does_not_import_networks_or_runs():
    graph = package_imports(texts())
    assert graph["data"] <= {"errors", "files"}


def test_the_facts_of_the_data_sets_need_no_tensorflow():
    found = imports(parse(MODULES["kseg.data.datasets"]))
    assert {name.split(".")[0] for name in found} <= sys.stdlib_module_names | {"kseg"}
    assert imports(parse(MODULES["kseg.data"])) == set()


def is_program(path):
    return any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        for node in parse(path).body
    )


def test_every_package_of_ring_3_is_a_program():
    programs = {name for name, path in MODULES.items() if is_program(path)}
    for package in RINGS[3]:
        assert {f"kseg.{package}", f"kseg.{package}.__main__"} & programs, package


def test_flags_are_defined_in_functions_and_read_in_one_place():
    for path in SOURCES:
        tree = parse(path)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert "DEFINE_" not in ast.unparse(node), f"{path}, line {node.lineno}"
        if module_name(path) == "kseg.cli":
            continue
        # Elsewhere FLAGS is only the default of a parameter.
        defaults = {
            id(default)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            for default in (*node.args.defaults, *node.args.kw_defaults)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "FLAGS":
                assert id(node) in defaults, f"{path} reads FLAGS in line {node.lineno}"


def test_importing_the_programs_defines_no_flag():
    """A flag that is defined at import would collide with the flags of other programs."""
    from absl import flags

    before = set(flags.FLAGS)
    for path in SOURCES:
        if is_program(path):
            __import__(module_name(path))
    added = set(flags.FLAGS) - before
    modules = {flags.FLAGS.find_module_defining_flag(name) for name in added}
    assert not {module for module in modules if module.split(".")[0] in ("kseg", "tfrecords_tools")}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_file_is_long_and_none_names_a_folder_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    for root in ("home", "work", "root", "Users"):
        assert f'"/{root}/' not in text and f" /{root}/" not in text


# Methods whose argument is a store of Keras, which has no public type.
KERAS_METHODS = {"save_own_variables", "load_own_variables"}


def untyped_functions(tree):
    """Yields the public functions and methods that lack the type hint of a parameter or result."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from untyped_functions(node)
        if not isinstance(node, ast.FunctionDef) or node.name in KERAS_METHODS:
            continue
        if node.name.startswith("_") and node.name != "__init__":
            continue
        parameters = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        typed = [p.annotation for p in parameters if p.arg not in ("self", "cls")]
        if None in typed or (node.returns is None and node.name != "__init__"):
            yield node.name


def test_everything_public_has_type_hints():
    missing = {
        f"{name}: {function}"
        for name, path in MODULES.items()
        for function in untyped_functions(parse(path))
    }
    assert not missing, sorted(missing)
    assert list(untyped_functions(ast.parse("def f(x): ...\ndef g() -> int: ..."))) == ["f"]
