"""Running a program inside the test's process."""

import contextlib
from collections.abc import Iterator

from absl import flags


@contextlib.contextmanager
def parsed_flags(program, *arguments) -> Iterator[flags.FlagValues]:
    """The flags of a program's module, parsed; afterwards they are undefined again."""
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
    """Returns what the `main` of a program's module returns, with flags of its own."""
    with parsed_flags(program, *arguments) as values:
        return program.main(values)
