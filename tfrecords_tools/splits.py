"""Splits a set into training and validation, so that what belongs together stays together."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from absl import flags

from kseg.errors import UserError
from tfrecords_tools import writer

VAL = "val"

Item = TypeVar("Item")


def hold_out(
    items: dict[str, Item],
    val_fraction: float,
    seed: int,
    *,
    train: str = "train",
    group_by: str | None = None,
    what: str = "images",
) -> dict[str, list[Item]]:
    """Draws the items of the validation split; the same arguments give the same split everywhere.

    Args:
        items: Name -> item. Names decide the split, with `seed`.
        val_fraction: Fraction of the items for validation, between 0 and 1. Both splits get at
            least one group.
        seed: Seed of the draw.
        train: Name of the split of the other items. Defaults to train.
        group_by: Regular expression that is searched in the names. Items for which it finds the
            same text, or the same groups if it has any, stay together. Defaults to None: every
            item is a group.
        what: What the items are, for messages.

    Returns:
        The items of `train` and of `val`, each sorted by name.

    Raises:
        UserError: A value breaks its rule, a name does not match, or there is only one group.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f"`val_fraction` must be between 0 and 1. Received: {val_fraction}")
    writer.check_split_name(train)
    if train == VAL:
        raise UserError(
            f"`split` must not be {VAL}, which `val_fraction` gives to the {what} that it holds out"
        )
    groups = _groups(sorted(items), group_by, what)
    if len(groups) < 2:
        raise UserError(
            f"`val_fraction` needs at least two {what if group_by is None else 'groups of ' + what}"
            f". Received: {len(groups)}" + f" with `group_by` {group_by!r}" * (group_by is not None)
        )
    wanted = val_fraction * len(items)
    order = np.random.default_rng(seed).permutation(len(groups))
    held_out: set[str] = set()
    for index in order[:-1]:
        group = groups[index]
        # A group is added if the fraction is closer to the wanted one with it than without it.
        if not held_out or len(held_out) + len(group) / 2 <= wanted:
            held_out.update(group)
    return {
        train: [items[name] for name in sorted(items) if name not in held_out],
        VAL: [items[name] for name in sorted(held_out)],
    }


def _groups(names: Sequence[str], group_by: str | None, what: str) -> list[list[str]]:
    if group_by is None:
        return [[name] for name in names]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(
            f"`group_by` must be a regular expression ({error}). Received: {group_by!r}"
        ) from None
    groups = defaultdict(list)
    unmatched = []
    for name in names:
        match = pattern.search(name)
        if match is None or not match[0]:
            unmatched.append(name)
        else:
            groups[match.groups() or match[0]].append(name)
    if unmatched:
        raise UserError(
            f"`group_by` must match the name of each of the {what}. Received: {group_by!r}, which "
            f"does not match {len(unmatched)} of {len(names)}, such as {unmatched[0]!r}"
        )
    return list(groups.values())


def define_flags() -> None:
    """Defines the flags of the split."""
    flags.DEFINE_float(
        "val_fraction",
        0.0,
        f"Fraction that is held out for the split {VAL}. 0: there is one split.",
        0,
        1,
    )
    flags.DEFINE_integer("seed", 0, "Seed by which --val_fraction draws.")
    flags.DEFINE_string(
        "group_by",
        None,
        "Regular expression for --val_fraction: names in which it finds the same text, or the "
        "same (groups), stay in one split.",
    )
