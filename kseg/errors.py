"""The one exception that programs print as a line instead of a traceback."""


class UserError(ValueError):
    """Bad input that the user can mend: a flag, a file, a data set, a checkpoint.

    Programs catch it in `kseg.cli.run`, print its message and leave with status 1. The message
    names what was asked, the rule and what came, and where there is one the command that helps.
    """
