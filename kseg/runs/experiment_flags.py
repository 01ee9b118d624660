"""Experiments as flags: of `kseg.train`, and of the file `experiment.flags` of a run."""

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.errors import UserError
from kseg.models import BACKBONES, CONTEXTS, MODELS
from kseg.models.options import Option
from kseg.runs.experiment import (
    AUGMENTATION,
    CONTEXT,
    DATA,
    NETWORK,
    OPTIMISATION,
    RUN,
    Experiment,
    known_options,
    setting_fields,
)
from kseg.runs.rules import check_crop, to_text

GROUPS = (DATA, NETWORK, CONTEXT, AUGMENTATION, OPTIMISATION, RUN)

# Flags and values that had another name up to version 0.1.0. Run folders and scripts hold them.
RENAMED_FLAGS = {
    "flip": "horizontal_flip",
    "hard_pixels": "ohem_fraction",
    "module": "variant",
    "scales": "pyramid_scales",
}
RENAMED_VALUES = {("upsampling", "deconvolution"): "conv2d_transpose"}

# Help of options whose docstring is about more than a flag can hold.
_HELP = {
    "backbone": f"Backbone, one of {', '.join(BACKBONES)}.",
    "context": f"Context module of deeplab_v3_plus, one of {', '.join(CONTEXTS)}, or "
    "package.module:Class.",
}
# In arguments that are joined by line breaks: the value follows "=" or is the next argument.
_CUSTOM_CONTEXT = re.compile(r"^--?context[=\n](\S+:\S+)$", re.MULTILINE)


def define_flags(
    values: flags.FlagValues = flags.FLAGS, arguments: Sequence[str] | None = None
) -> None:
    """Defines one flag for each field of `Experiment` and each option.

    Args:
        values: Where the flags are defined.
        arguments: The command line. A context module in it that is given by
            `package.module:Class` adds its options. Defaults to that of this process.

    Raises:
        UserError: Such a module cannot be imported.
    """
    by_group: dict[str, list] = {group: [] for group in GROUPS}
    for field in setting_fields():
        by_group[field.metadata["group"]].append(field)
    custom = _custom_contexts(sys.argv[1:] if arguments is None else arguments)
    try:
        options = known_options(custom)
    except ValueError as error:
        raise UserError(str(error)) from error
    for owners in options.values():
        of_network = set(owners) & set(MODELS)
        by_group[NETWORK if of_network else CONTEXT].append(owners)
    for group in GROUPS:
        for item in by_group[group]:
            name = _define_option(item, values) if isinstance(item, dict) else _define(item, values)
            cli.set_group(group, [name], values)
    for old, new in RENAMED_FLAGS.items():
        cli.define_alias(old, new, values)


def _custom_contexts(arguments: Sequence[str]) -> list[str]:
    """Returns the values `package.module:Class` of `--context` in arguments and flagfiles."""
    try:
        expanded = cli.with_flagfiles(arguments)
    except flags.Error as error:
        raise UserError(str(error).removeprefix("ERROR:: ")) from error
    return _CUSTOM_CONTEXT.findall("\n".join(expanded))


def _define_function(kind: type, is_list: bool) -> Callable:
    """Returns the function that defines a flag of that type."""
    if is_list:
        return flags.DEFINE_list
    return {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }[kind]


def _define(field: dataclasses.Field, values: flags.FlagValues) -> str:
    kind, is_list = _kind(field)
    default = to_text(field.default) if isinstance(field.default, tuple) else field.default
    define = _define_function(kind, is_list)
    define(field.name, default, field.metadata["help"], flag_values=values)
    return field.name


def _define_option(owners: dict[str, Option], values: flags.FlagValues) -> str:
    """Defines the flag of an option; unset, each network or module has its own default."""
    option = next(iter(owners.values()))
    define = _define_function(option.kind, option.is_list)
    described: dict[str, list[str]] = {}
    for owner, same in owners.items():
        described.setdefault(_summary(same.help), []).append(owner)
    text = " ".join(f"{', '.join(names)}: {help}" for help, names in described.items())
    define(option.name, None, _HELP.get(option.name, text), flag_values=values)
    defaults: dict[str, list[str]] = {}
    for owner, same in owners.items():
        defaults.setdefault(_default(same), []).append(owner)
    values[option.name].help_default = "; ".join(
        text if len(defaults) == 1 else f"{text} ({', '.join(names)})"
        for text, names in defaults.items()
    )
    return option.name


def _summary(help: str) -> str:
    """Returns the description of an option without the sentence on its default."""
    text = _as_flag_text(re.split(r"\s+Defaults? to ", help)[0])
    text = re.sub(r" or None(?=[.,])", "", text)
    return re.sub("^None or (.)", lambda match: match[1].upper(), text)


def _default(option: Option) -> str:
    """Returns the default of an option; what None stands for in the words of the docstring."""
    if option.default is not None:
        return to_text(option.default)
    stated = re.search(r"Defaults to `?None`?,(?: which stands for)? (.+?)\.?$", option.help)
    return _as_flag_text(stated[1]) if stated else "set by the module"


def _as_flag_text(text: str) -> str:
    """Returns text of a docstring with lists as flags take them: `(1, 2, 4)` becomes 1,2,4."""
    lists = re.compile(r"\((\d+(?:, \d+)+)\)")
    return lists.sub(lambda match: match[1].replace(" ", ""), text.replace("`", ""))


def from_flags(values: flags.FlagValues) -> Experiment:
    """Reads an experiment from parsed flags.

    Raises:
        UserError: A value breaks its rule.
    """
    read = {}
    for field in setting_fields():
        kind, is_list = _kind(field)
        value = values[field.name].value
        read[field.name] = cli.numbers(values, field.name, kind) if is_list else value
    for name, owners in known_options(_given_context(values)).items():
        value = values[name].value
        if value in (None, "", []):
            continue
        option = next(iter(owners.values()))
        if option.is_list:
            value = cli.numbers(values, name, option.kind)
        read[name] = RENAMED_VALUES.get((name, value), value)
    experiment = Experiment(**read)
    check_crop(experiment)
    return experiment


def _given_context(values: flags.FlagValues) -> list[str]:
    context = values["context"].value
    return [context] if context and ":" in context else []


def to_flagfile(experiment: Experiment) -> str:
    """Returns the text of a flagfile from which the same experiment is read."""
    lines = [
        f"--{name}={to_text(value)}"
        for name, value in experiment.values().items()
        if value is not None
    ]
    return "\n".join(lines) + "\n"


def from_flagfile(path: str | Path) -> Experiment:
    """Reads an experiment from a flagfile such as the `experiment.flags` of a run.

    Raises:
        UserError: The file is missing or holds an unknown flag or a bad value.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no flagfile {path}")
    try:
        return from_arguments([f"--flagfile={path}"])
    except flags.Error as error:
        raise UserError(f"{path}: {error}") from error


def from_arguments(arguments: Sequence[str]) -> Experiment:
    """Reads an experiment from the arguments of a `kseg.train`.

    Raises:
        absl.flags.Error: An argument is no flag of an experiment.
        UserError: A value breaks its rule, or an argument or a line of a flagfile is not a flag.
    """
    values = flags.FlagValues()
    define_flags(values, arguments)
    _, *others = values(["kseg", *cli.with_flagfiles(arguments)])
    if others:
        raise UserError(f"Every argument must be a flag, as in --name=value. Received: {others}")
    return from_flags(values)


def _kind(field: dataclasses.Field) -> tuple[type, bool]:
    """Returns the type of a field's value or of its items, and whether it is a list of them."""
    if isinstance(field.type, types.GenericAlias):
        return typing.get_args(field.type)[0], True
    return field.type, False
