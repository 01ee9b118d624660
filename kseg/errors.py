"""The exception that programs print as one line instead of a traceback."""


class UserError(ValueError):
    """Invalid input that the user can correct: a flag, a file, a data set or a checkpoint.

    `kseg.cli.run` catches it, prints its message and exits with status 1. The message names the
    argument or file, states the rule and the value received, and where possible gives the command
    that helps.
    """
