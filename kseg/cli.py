"""What every program shares: flags, their aliases and groups, help, and errors of the user."""

import logging as std_logging
import sys
import textwrap
from collections.abc import Callable, Iterable

from absl import app, flags, logging

from kseg.errors import UserError

_HELP_FLAGS = ("help", "helpshort", "helpfull")
_OTHER_GROUP = "This program"


def run(main: Callable, define_flags: Callable[[], None], *, takes_arguments: bool = False) -> None:
    """Runs a program: defines and parses its flags, calls `main`, and exits with its status.

    Args:
        main: Function of the parsed flags. It returns the exit status; None stands for 0.
        define_flags: Function that defines the flags of the program on `absl.flags.FLAGS`. It is
            called here and not at import, so that importing a program never affects the flags of
            another.
        takes_arguments: Whether `main` takes a list of the arguments that are not flags, too. If
            it does not, such arguments are an error.
    """
    try:
        define_flags()
    except UserError as error:
        sys.exit(_report(error))
    if any(argument.lstrip("-") in _HELP_FLAGS for argument in sys.argv[1:]):
        print(help_text(sys.modules["__main__"].__doc__ or ""))
        sys.exit(0)

    def parsed_main(arguments: list[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:
            # TensorFlow prints thousands of words about every step of an export.
            logging.set_verbosity(logging.WARNING)
            std_logging.getLogger("tensorflow").setLevel(std_logging.WARNING)
        try:
            if takes_arguments:
                return main(flags.FLAGS, arguments[1:])
            if len(arguments) > 1:
                raise UserError(
                    f"Every argument must be a flag, as in --name=value. Received: {arguments[1:]}"
                )
            return main(flags.FLAGS)
        except UserError as error:
            return _report(error)

    app.run(parsed_main)


def _report(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


def require(values: flags.FlagValues, *names: str) -> None:
    """Raises `UserError` for the first of the named flags that is empty."""
    for name in names:
        if not values[name].value:
            raise UserError(f"`--{name}` must be given. {values[name].help}")


def numbers(values: flags.FlagValues, name: str, kind: type) -> tuple:
    """Reads a list flag as a tuple of numbers.

    Raises:
        UserError: An item is not a number of that kind.
    """
    try:
        return tuple(kind(text) for text in values[name].value)
    except ValueError as error:
        noun = "integers" if kind is int else "numbers"
        raise UserError(
            f"`--{name}` must be {noun} separated by commas. "
            f"Received: {','.join(values[name].value)}"
        ) from error


def define_alias(old: str, new: str, values: flags.FlagValues = flags.FLAGS) -> None:
    """Lets a flag be given by its former name, with a note about the new one.

    Args:
        old: The former name.
        new: The present name, a flag that is defined already.
        values: The flags.
    """
    flags.DEFINE_alias(old, new, flag_values=values)
    alias = values[old]
    alias.is_alias = True
    parse = alias.parse

    def parse_with_note(argument):
        print(f"note: --{old} is now called --{new}", file=sys.stderr)
        parse(argument)

    alias.parse = parse_with_note


def set_group(group: str, names: Iterable[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Lists flags under a heading of their own in `--help`."""
    for name in names:
        values[name].group = group


def help_text(description: str, values: flags.FlagValues = flags.FLAGS) -> str:
    """The text of `--help`: the description of the program, then its flags by group.

    Args:
        description: Docstring of the program.
        values: The flags. Aliases and the flags of other packages are left out.
    """
    groups: dict[str, list[flags.Flag]] = {}
    for module, defined in values.flags_by_module_dict().items():
        # absl names the module of the program after the command line.
        if module != sys.argv[0] and module.split(".")[0] not in ("kseg", "tfrecords_tools"):
            continue
        for flag in defined:
            if not getattr(flag, "is_alias", False):
                groups.setdefault(getattr(flag, "group", _OTHER_GROUP), []).append(flag)
    lines = [description.strip()]
    for group in sorted(groups, key=lambda name: name != _OTHER_GROUP):
        lines += ["", f"{group}:"]
        for flag in groups[group]:
            lines += _flag_lines(flag)
    return "\n".join([*lines, "", "--flagfile=FILE reads flags from a file, one on each line."])


def _flag_lines(flag: flags.Flag) -> list[str]:
    default = getattr(flag, "help_default", None)
    if default is None:
        default = flag.default_as_str if flag.default is not None else "'unset'"
        default = str(default).strip("'")
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    text = f"{flag.help} Default: {default or 'empty'}."
    return [
        f"  {name}",
        *textwrap.wrap(text, 88, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]
