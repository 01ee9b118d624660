"""Checks of the samples of a whole conversion, before any of them is read, and their error."""

import filecmp
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from kseg.data import mask_palettes
from kseg.data.mask_palettes import Header
from kseg.data.masks import IDS, MaskRule
from kseg.errors import UserError
from tfrecords_tools.inputs import Sample


def nothing_converted(problems: Sequence[str], reason: str | None = None) -> UserError:
    """Returns the error of a conversion that was not done, with every problem on a line.

    Args:
        problems: The messages.
        reason: Why nothing was converted. Defaults to the number of the problems.
    """
    reason = reason or f"{len(problems)} problem(s)"
    return UserError("\n  ".join((f"nothing was converted, {reason}:", *problems)))


def contradictions(
    splits: Mapping[str, Sequence[Sample]], rule: MaskRule, on_error: str
) -> list[str]:
    """Returns a problem for each mask of ids that contradicts the others.

    Raises:
        UserError: If problems are to be skipped, because nobody can know which masks are right.
    """
    labels = [sample.label for samples in splits.values() for sample in samples]
    paths = dict.fromkeys(label for label in labels if isinstance(label, Path))
    return contradictions_of_files(paths, rule, on_error)


def contradictions_of_files(
    paths: Iterable[Path],
    rule: MaskRule,
    on_error: str,
    read: Callable[[Path], Header | None] = mask_palettes.read_header,
) -> list[str]:
    """Returns the same for the files of masks, whose headers `read` reads."""
    if rule.masks_are != IDS or rule.trusts_palettes:
        return []
    found = mask_palettes.contradictions(paths, rule, read)
    if found and on_error == "skip":
        raise nothing_converted(
            found, "since masks contradict each other and none of them can be skipped"
        )
    return found


def without_duplicates(
    splits: Mapping[str, Sequence[Sample]],
    may_share: Collection[Collection[str]],
    problems: list[str],
) -> dict[str, list[Sample]]:
    """Returns the splits without samples that occurred before, which are problems.

    A name must be the only one in its split. Another split may have it for another image, such as
    `train/0001.png` and `val/0001.png`.
    """
    shared = {frozenset(pair) for pair in may_share}
    seen: dict[str, dict[str, Sample]] = {}
    kept: dict[str, list[Sample]] = {}
    for split, samples in splits.items():
        kept[split] = []
        for sample in samples:
            found = seen.setdefault(sample.name, {})
            conflicts = [
                earlier
                for earlier in found
                if {earlier, split} not in shared
                and (earlier == split or _has_same_bytes(found[earlier].image, sample.image))
            ]
            if conflicts:
                problems.append(
                    f"{sample.image}: id {sample.name!r} of split {split!r} occurs twice, first in "
                    f"split {conflicts[0]!r} ({found[conflicts[0]].image})"
                )
            else:
                found[split] = sample
                kept[split].append(sample)
    return kept


def _has_same_bytes(first: Path, second: Path) -> bool:
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:  # Named by the reader of the images.
        return False
