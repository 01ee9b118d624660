"""Documents: links lead somewhere, commands can be parsed, examples run, tables are complete."""

import contextlib
import importlib
import importlib.util
import re
import shlex

import numpy as np
import pytest
from absl import flags

import kseg
from kseg.runs import start
from tests.conftest import REPOSITORY
from tests.documents import BLOCK, check_tables, prose, python_blocks, rows_of_tables, text_of
from tests.program_calls import parsed_flags

PAGES = sorted(
    path
    for folder in (".", "docs", "experiments", "tfrecords_tools")
    for path in (REPOSITORY / folder).glob("*.md")
)
README = REPOSITORY / "README.md"
IDS = [str(path.relative_to(REPOSITORY)) for path in PAGES]
on_every_page = pytest.mark.parametrize("path", PAGES, ids=IDS)

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
COMMAND = re.compile(r"python -m ((?:kseg|tfrecords_tools)\.[a-z_0-9]+)(?![\w<])(.*)")
# Flags of absl, TensorBoard and XLA.
OTHER_FLAGS = (
    "flagfile", "help", "logdir", "verbosity",
    "xla_gpu_deterministic_ops", "xla_gpu_per_fusion_autotune_cache_dir",
)  # fmt: skip
# What ends a command in a shell.
ENDS = {"&", "&&", "|", ";"}


def anchors(path):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(path):
    """(module, arguments) of each call of a program, in code blocks and in the text."""
    blocks = [block for language, block in BLOCK.findall(text_of(path)) if not language]
    joined = [re.sub(r"\\\n\s*", " ", block) for block in blocks]
    inline = [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose(path))]
    for line in "\n".join(joined + inline).splitlines():
        for module, rest in COMMAND.findall(line):
            words = shlex.split(rest, comments=True)
            end = next((i for i, word in enumerate(words) if word in ENDS), len(words))
            yield module, words[:end]


def program(module):
    """The module that `python -m` runs."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    is_package = spec.submodule_search_locations is not None
    return importlib.import_module(f"{module}.__main__" if is_package else module)


@on_every_page
def test_links_lead_to_files_and_headings(path):
    for target in LINK.findall(prose(path)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize(
    ("module", "arguments"),
    sorted({(module, tuple(words)) for path in PAGES for module, words in commands(path)}),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_command_names_a_program_and_its_flags(module, arguments):
    if any(word.startswith("--context=my_context:") for word in arguments):
        pytest.skip("tests/custom_context_test.py runs programs with the module of this page")
    # `--help` is defined when a program runs; NAME and X stand for any flagfile, $i for a number.
    left_out = re.compile(r"--help|--flagfile=experiments/[A-Z]+\.flags")
    words = [re.sub(r"\$\w+", "0", word) for word in arguments if not left_out.fullmatch(word)]
    with contextlib.chdir(REPOSITORY), parsed_flags(program(module), *words):
        pass


@pytest.fixture(scope="module")
def known_flags():
    """The names of the flags of all programs."""
    known = set(OTHER_FLAGS)
    for folder in ("kseg", "tfrecords_tools"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if "cli.run(main, define_flags" in text_of(path):
                name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
                before = set(flags.FLAGS)
                with parsed_flags(importlib.import_module(name)) as values:
                    known |= set(values) - before
    return known


@on_every_page
def test_a_flag_in_the_text_is_one_of_a_program(path, known_flags):
    code = " ".join(re.findall(r"`([^`]+)`", prose(path)))
    named = set(re.findall(r"(?<![\w-])--(\w+)", code))
    assert named <= known_flags


def test_commands_links_and_tables_are_found():
    found = list(commands(README))
    assert ("kseg.compare", ["runs/*"]) in found
    assert len(found) >= 6
    assert "docs/own_data.md" in LINK.findall(prose(README))
    heads = [head for head, *_ in rows_of_tables(README)]
    assert ["page", "about"] in heads


@on_every_page
def test_no_cell_of_a_table_is_empty_or_a_dash(path):
    check_tables(path)


def test_the_flags_that_may_change_on_resuming_are_in_the_table():
    (table,) = (
        table
        for table in rows_of_tables(REPOSITORY / "docs" / "training.md")
        if table[0] == ["changed", "what happens"]
    )
    accepted = "".join(flags for flags, result in table[2:] if result == "accepted")
    assert all(f"`--{name}`" in accepted for name in start._FREE)


def test_the_examples_of_readme_run():
    layer, network, trained = python_blocks(README)
    names = {}
    exec(layer, names)
    assert names["context"].shape == (None, None, None, 256)
    exec(network, names)
    model = names["model"]
    assert model.output_shape == (None, None, None, 21)
    image = np.zeros((40, 50, 3), np.uint8)
    names = {"image": image}
    with pytest.MonkeyPatch.context() as patch:  # no run was trained here
        patch.setattr(kseg, "load", lambda path: {"runs/ksac": model}[path])
        exec(trained, names)
    assert names["classes"].shape == (40, 50)


@on_every_page
def test_no_page_installs_extras_from_the_package_index(path):
    """kseg is not on the package index: its extras are installed from a checkout."""
    assert "kseg[" not in text_of(path)
