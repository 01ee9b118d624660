"""What every program shares: flags, their aliases and groups, help, and errors of the user."""

import contextlib
import logging as std_logging
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from absl import app, flags, logging

from kseg import errors
from kseg.errors import UserError

# What TensorFlow prints about the machine before it reads TF_CPP_MIN_LOG_LEVEL. Warnings, and
# errors about a GPU that is there, are not among it.
_START_LINES = re.compile(
    rb"I\d{4} |WARNING: All log messages before absl::|To enable the following instructions: |"
    rb"E\d{4} .*failed call to cuInit: .*(\(303\)|NO_DEVICE|no CUDA-capable device)"
)
_PACKAGES = ("kseg", "tfrecords_tools")
_PROGRAM = "KSEG_PROGRAM"  # Set in the environment of programs, and read by `kseg/__init__.py`.
_WHOLE = b"\0"  # Ends what is written during a start that succeeded.
_HELP_FLAGS = ("help", "helpshort", "helpfull")
_OTHER_GROUP = "This program"


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

    app.run(parsed_main, flags_parser=_parse)


def _parse(arguments: list[str]) -> list[str]:
    """Parses the flags; an error of them ends the program in one line."""
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        text = " ".join(str(error).removeprefix("ERROR:: ").split()).rstrip(" .")
        text = text.replace(" ?", "?")  # "Did you mean: model_dir ?"
        stop = "" if text.endswith("?") else "."
        sys.exit(_report(UserError(f"{text}{stop} `--help` lists the flags")))
    except UserError as error:
        sys.exit(_report(error))


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

    Errors of files that lie elsewhere, such as temporary files, are left as they are.

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
        names = [name for name, path in outputs.items() if _is_beside(file, path)]
        if not names:
            raise
        # What a program of ours writes first, see `kseg.files`, has a name that says nothing.
        file = str(file).split("/.partial-")[0]
        advice = f"`--{names[0]}` can name another place"
        if done:
            advice = f"{done} {advice}"
        raise UserError(f"{file} cannot be written: {reason}. {advice}") from error


def _is_beside(file: str | os.PathLike, output: str | os.PathLike) -> bool:
    """Returns whether a file belongs to an output, lies beside it, or is a folder above it."""
    file, output = Path(file).absolute(), Path(output).absolute()
    return file.is_relative_to(output.parent) or output.is_relative_to(file)


def start_tensorflow() -> None:
    """Imports TensorFlow in a program, without the lines about the machine that it prints.

    They are shown if `--verbosity` is at least 0 or TF_CPP_MIN_LOG_LEVEL is 0 or 1. Nothing is done
    if TensorFlow is imported already, or in a process that is not one of our programs: it may use
    kseg as a library.
    """
    if "tensorflow" in sys.modules:
        return
    # `python -m NAME arguments`: these are all but the arguments.
    command = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    is_program = command[-2:-1] == ["-m"] and command[-1].split(".")[0] in _PACKAGES
    if not is_program and _PROGRAM not in os.environ:
        return
    os.environ[_PROGRAM] = "1"  # For the processes that it starts.
    wanted = r"(^| )--?(verbosity|v)[= ](\d|info|debug)"
    if re.search(wanted, " ".join(sys.argv[1:]), re.IGNORECASE):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    shown = os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1")
    with contextlib.nullcontext() if shown else _without_start_lines():
        with _hidden("matplotlib", "sklearn"):
            import tensorflow as tf

        tf.config.list_physical_devices()  # The search for GPUs prints lines, too.


@contextlib.contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Lets the body find that packages are not installed, unless they are imported already.

    Keras, which TensorFlow imports, tries to import them for functions that no program uses. With
    both installed, a start took 10.2 s of processor time, and 8.2 s when they are hidden.
    """
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # Python raises ImportError for these.
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


@contextlib.contextmanager
def _without_start_lines() -> Iterator[None]:
    """Holds back what is written to descriptor 2, and leaves out `_START_LINES`.

    A child process holds it. So nothing is lost if this process ends inside the body, as
    TensorFlow ends it on a processor without AVX: everything is printed then, and on an exception.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # It is closed.
        yield
        return
    source, target = os.pipe()
    child = os.fork()
    if not child:
        os.close(target)
        _print_held(source)
    os.close(source)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
        os.write(2, _WHOLE)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(child, 0)


def _print_held(source: int) -> None:
    """Reads a pipe to its end, prints it and ends this process."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the writing process.
        held = b""
        while chunk := os.read(source, 1 << 16):
            held += chunk
        if held.endswith(_WHOLE):
            lines = held.removesuffix(_WHOLE).splitlines(keepends=True)
            held = b"".join(line for line in lines if not _START_LINES.match(line))
        while held:
            held = held[os.write(2, held) :]
    finally:
        os._exit(0)


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
        if module != sys.argv[0] and module.split(".")[0] not in _PACKAGES:
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
