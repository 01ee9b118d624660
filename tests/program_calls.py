"""Runs a program in the process of the test."""

import contextlib
from collections.abc import Iterator

from absl import flags


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
