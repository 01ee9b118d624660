"""What every program shares: flags, their aliases and groups, help, and errors of the user."""

import contextlib
import logging as std_logging
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import app, flags, logging

from kseg import errors
from kseg.errors import UserError

PACKAGES = ("kseg", "tfrecords_tools")
STOPPED = 128  # Added to the number of the signal in the exit status, as shells do.
_HELP_FLAGS = ("help", "helpshort", "helpfull")
_OTHER_GROUP = "This program"
_HOME = re.compile(r"^(--?\w+=)~/")
_BYTE_ORDER_MARK = "\ufeff"  # Editors on Windows begin files with it.


def run(
    main: Callable,
    define_flags: Callable[[], None],
    *,
    takes_arguments: bool = False,
    less_memory: str = "",
) -> None:
    """Runs a program: defines and parses its flags, calls `main`, and exits with its status.

    Args:
        main: Function of the parsed flags. It returns the exit status; None stands for 0.
        define_flags: Function that defines the flags of the program on `absl.flags.FLAGS`. It is
            called here and not at import, so that importing a program never affects the flags of
            another.
        takes_arguments: Whether `main` takes a list of the arguments that are not flags, too. If
            it does not, such arguments are an error.
        less_memory: What needs less memory in this program, for the message when it runs out of
            it: a sentence without its full stop.
    """
    # Other programs may use the same GPU. TensorFlow reads it when it first uses one.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
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
            with explained(less_memory):
                if takes_arguments:
                    return main(flags.FLAGS, arguments[1:])
                if len(arguments) > 1:
                    raise UserError(
                        "Every argument must be a flag, as in --name=value. "
                        f"Received: {arguments[1:]}"
                    )
                return main(flags.FLAGS)
        except UserError as error:
            return _report(error)
        except KeyboardInterrupt as error:
            print("\n".join(["interrupted", *getattr(error, "__notes__", ())]), file=sys.stderr)
            return STOPPED + signal.SIGINT

    app.run(parsed_main, flags_parser=_parse)


def _parse(arguments: list[str]) -> list[str]:
    """Parses the flags; an error of them ends the program in one line."""
    try:
        return flags.FLAGS([arguments[0], *with_flagfiles(arguments[1:])])
    except flags.Error as error:
        text = " ".join(str(error).removeprefix("ERROR:: ").split()).rstrip(" .")
        text = text.replace(" ?", "?")  # "Did you mean: model_dir ?"
        stop = "" if text.endswith("?") else "."
        sys.exit(_report(UserError(f"{text}{stop} `--help` lists the flags")))
    except UserError as error:
        sys.exit(_report(error))


def with_flagfiles(arguments: Sequence[str]) -> list[str]:
    """Returns arguments with the lines of flagfiles in place of each `--flagfile`.

    The folder `~` of the user is expanded: a shell leaves it in `--model_dir=~/runs/x`.

    Raises:
        absl.flags.Error: If a flagfile is missing.
        UserError: If a flagfile is not UTF-8 text.
    """
    try:
        lines = flags.FlagValues().read_flags_from_files(list(arguments))
    except UnicodeDecodeError as error:
        given = [argument for argument in arguments if "flagfile" in argument]
        raise UserError(
            f"`--flagfile` must name files of UTF-8 text. Received: {' '.join(given)} "
            f"({error.reason})"
        ) from error
    if not any(line.startswith(_BYTE_ORDER_MARK) for line in lines):
        return [
            _HOME.sub(lambda match: match[1] + os.path.expanduser("~/"), line) for line in lines
        ]
    # absl takes the mark for a part of the first line, which may be a comment or a flagfile.
    lines = [line.removeprefix(_BYTE_ORDER_MARK) for line in lines]
    return with_flagfiles([line for line in lines if not line.startswith(("#", "//"))])


def _report(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def explained(less_memory: str = "") -> Iterator[None]:
    """Turns errors whose cause is outside of the program into `UserError`.

    See `kseg.errors.explanation`. `run` does so for `main`.
    """
    try:
        yield
    except Exception as error:
        message = errors.explanation(error, less_memory)
        if message is None:
            raise
        raise UserError(message) from error


@contextlib.contextmanager
def writing(outputs: Mapping[str, str | os.PathLike], done: str = "") -> Iterator[None]:
    """Turns errors of writing an output into a `UserError` that names the flag for another one.

    Errors of files that lie elsewhere, such as inputs, are left as they are.

    Args:
        outputs: Name of a flag -> the file or folder that it stands for. An error that does not
            name a file is one of the first.
        done: A sentence about what was written, with its full stop.
    """
    try:
        yield
    except Exception as error:
        failure = errors.file_failure(error)
        if failure is None:
            raise
        file, reason = failure[0] or next(iter(outputs.values())), failure[1]
        names = [name for name, path in outputs.items() if _belongs_to(file, path)]
        if not names:
            raise
        # What a program of ours writes first, see `kseg.files`, has a name that says nothing.
        file = str(file).split("/.partial-")[0]
        advice = f"`--{names[0]}` can name another place"
        if done:
            advice = f"{done} {advice}"
        raise UserError(f"{file} cannot be written: {reason}. {advice}") from error


def _belongs_to(file: str | os.PathLike, output: str | os.PathLike) -> bool:
    """Returns whether a file is part of an output, or is a folder above it.

    The temporary files of an output lie beside it, and so do further outputs that are named after
    one that is a file.
    """
    file, output = Path(file).absolute(), Path(output).absolute()
    if file.is_relative_to(output) or output.is_relative_to(file):
        return True
    if not file.is_relative_to(output.parent):
        return False
    first, *others = file.relative_to(output.parent).parts
    return first.startswith(".partial-") or (not others and output.suffix != "")


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
        if module != sys.argv[0] and module.split(".")[0] not in PACKAGES:
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
    text = flag.help if "Default:" in flag.help else f"{flag.help} Default: {default or 'empty'}."
    return [
        f"  {name}",
        *textwrap.wrap(text, 88, initial_indent=" " * 6, subsequent_indent=" " * 6),
    ]
