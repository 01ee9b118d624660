"""Running a program inside the test's process."""

from absl import flags


def call_main(program, *arguments):
    """Returns what the `main` of a program's module returns, with flags of its own."""
    defined = set(flags.FLAGS)
    program.define_flags()
    try:
        flags.FLAGS([program.__name__, *map(str, arguments)])
        return program.main(flags.FLAGS)
    finally:
        for name in set(flags.FLAGS) - defined:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
