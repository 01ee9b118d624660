"""Runs a program in the process of the test, or a script in a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from absl import flags

from tests.conftest import REPOSITORY


@contextlib.contextmanager
def parsed_flags(program, *arguments) -> Iterator[flags.FlagValues]:
    """Yields the parsed flags of a program's module, and undefines them afterwards."""
    defined = set(flags.FLAGS)
    program.define_flags()
    try:
        flags.FLAGS([program.__name__, *map(str, arguments)])
        yield flags.FLAGS
    finally:
        for name in set(flags.FLAGS) - defined:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


def call_main(program, *arguments):
    """Calls `main` of a program's module with flags parsed from the arguments."""
    with parsed_flags(program, *arguments) as values:
        return program.main(values)


def run_script(script, *arguments):
    """Runs Python code in a new process in the repository, and fails with its errors."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
