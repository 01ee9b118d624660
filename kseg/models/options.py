"""The options of a network or a context module, read from its signature and docstring.

Flags, their help and the checks of an experiment are made from what is read here, so that an
option is written down once: as an argument of the layer or of the network.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable

# Arguments of networks that are not options: the data, the run or the caller decides them.
_NOT_OPTIONS = ("self", "num_classes", "backbone_weights", "image_size")
_SCALARS = (bool, int, float, str)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a network or a context module.

    Attributes:
        name: Name of the argument.
        kind: `bool`, `int`, `float` or `str`, the type of the value or of its items.
        is_list: Whether the value is a tuple of items.
        default: The default of the argument.
        help: What the docstring says of the argument, on one line.
    """

    name: str
    kind: type
    is_list: bool
    default: object
    help: str


def options_of(builder: Callable) -> dict[str, Option]:
    """Reads the options of a layer class or of a function that builds a network.

    Args:
        builder: Its keyword arguments have type hints and defaults. The docstring describes each
            of them in a section `Args:`.

    Returns:
        The options by name, in the order of the signature.

    Raises:
        ValueError: If an argument has no default or no type hint that a flag can have: `bool`,
            `int`, `float`, `str`, a tuple of one of these, or one of these with `None`.
    """
    target = builder.__init__ if inspect.isclass(builder) else builder
    hints = typing.get_type_hints(target)
    described = _described_arguments(inspect.getdoc(builder) or "")
    options = {}
    for parameter in inspect.signature(target).parameters.values():
        name = parameter.name
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in _NOT_OPTIONS:
            continue
        if parameter.default is parameter.empty or name not in hints:
            raise ValueError(
                f"Every argument of {builder.__name__} must have a default and a type hint, since "
                f"it becomes a flag. Received: `{name}`"
            )
        kind, is_list = _kind(builder, name, hints[name])
        options[name] = Option(name, kind, is_list, parameter.default, described.get(name, ""))
    return options


def _kind(builder: Callable, name: str, hint) -> tuple[type, bool]:
    """Returns the type of an option's value or items, and whether it is a tuple of items."""
    candidates = typing.get_args(hint) if _is_union(hint) else (hint,)
    for candidate in candidates:
        if candidate in _SCALARS:
            return candidate, False
        if typing.get_origin(candidate) is tuple and typing.get_args(candidate)[0] in _SCALARS:
            return typing.get_args(candidate)[0], True
    raise ValueError(
        f"The type hint of `{name}` of {builder.__name__} must be one of bool, int, float, str, or "
        f"a tuple of one of these. Received: {hint}"
    )


def _is_union(hint) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _described_arguments(docstring: str) -> dict[str, str]:
    """Returns the description of each argument in the section `Args:` of a docstring."""
    section = re.search(r"^Args:\n((?:[ ].*\n|\n(?=[ ]))*)", docstring + "\n", re.MULTILINE)
    if not section:
        return {}
    entries = re.split(r"^ {4}(?=\S)", section[1], flags=re.MULTILINE)[1:]
    described = {}
    for entry in entries:
        name, _, text = entry.partition(":")
        described[name.strip("`* ")] = " ".join(text.split())
    return described
