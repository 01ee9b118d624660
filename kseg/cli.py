"""What every program of kseg shares: flags read once, and errors that a user can read."""

import logging as std_logging
import sys
from collections.abc import Callable

from absl import app, flags, logging

from kseg.errors import UserError


def run(main: Callable, define_flags: Callable[[], None], *, takes_arguments: bool = False) -> None:
    """Runs a program: defines and parses its flags, calls `main`, leaves with its status.

    Args:
        main: Takes the parsed flags. What it returns is the exit status (None: 0).
        define_flags: Defines the program's flags on `absl.flags.FLAGS`. It is called here and not
            at import, so that importing a program never touches the flags of another.
        takes_arguments: Whether `main` takes, besides the flags, a list of the other arguments;
            else there must be none.
    """
    define_flags()
    _list_in_help()

    def parsed_main(arguments: list[str]) -> int | None:
        _apply_aliases()
        if not flags.FLAGS["verbosity"].present:
            # TensorFlow tells of every step of an export, by thousands of words.
            logging.set_verbosity(logging.WARNING)
            std_logging.getLogger("tensorflow").setLevel(std_logging.WARNING)
        try:
            if takes_arguments:
                return main(flags.FLAGS, arguments[1:])
            if len(arguments) > 1:
                raise UserError(
                    f"every argument is a flag, as in --name=value. Received: {arguments[1:]}"
                )
            return main(flags.FLAGS)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    app.run(parsed_main)


_ALIASES: dict[str, str] = {}


def define_alias(old: str, new: str) -> None:
    """Keeps the old name of a renamed flag, which old command lines and flagfiles contain.

    Args:
        old: The old name. `run` prints a note if it is used.
        new: The new name, which must have been defined before.
    """
    flags.DEFINE_string(old, None, f"Old name of --{new}.")
    _ALIASES[old] = new


def _apply_aliases() -> None:
    for old, new in _ALIASES.items():
        if flags.FLAGS[old].present:
            print(f"note: --{old} is now called --{new}", file=sys.stderr)
            flags.FLAGS[new].parse(flags.FLAGS[old].value)


def _list_in_help() -> None:
    """Lets `--help` list the flags that other modules of kseg define, too; absl leaves them out."""
    for module, found in flags.FLAGS.flags_by_module_dict().items():
        if module.split(".")[0] in ("kseg", "tfrecords_tools"):
            for flag in found:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def require(values: flags.FlagValues, *names: str) -> None:
    """Raises `UserError` for the first of the named flags that is empty."""
    for name in names:
        if not values[name].value:
            raise UserError(f"`--{name}` must be given. {values[name].help}")
