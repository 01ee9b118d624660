"""What masks, the files that hold the ground truth of images, mean: one rule for all programs.

Either colours were given as the meaning of the masks, in the classes file or a remap table: then a
mask is read by the colour that a person sees, whatever its mode (palette masks through their own
palette, grey and 1 bit as grey colours). Or they were not: then a mask is read by its ids, which
are palette indices or grey values. A mask that the rule does not cover is rejected. The colours
with which kseg draws classes never change how a mask is read.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data import mask_files
from kseg.data.checked_images import BadInput
from kseg.data.datasets import IGNORE_LABEL, LabelSet
from kseg.data.mask_files import load_mask

Colour = tuple[int, int, int]

IDS, COLOURS = MASKS_ARE = ("ids", "colours")
_VALUES_PER_BAND = 1 << 20


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """What masks mean. Called with the path of a mask and the classes, it returns class ids.

    Args:
        masks_are: `"ids"` or `"colours"`. Defaults to ids.
        ids: Class id, or ignore label, of each stored value, if masks are ids. Defaults to None:
            the values are class ids.
        colours: Class id, or ignore label, of each (red, green, blue), if masks are colours.
        other: Class id, or ignore label, of all other values or colours. Defaults to None: a mask
            with anything else is rejected.
        palette: Classes whose colours the palettes of masks of ids have, if they are known; a
            palette that shows a class in the colour of another one is rejected. Defaults to None.
        trusts_palettes: Whether the indices of palettes are ids even if the palettes of several
            masks contradict each other. Defaults to False.
        takes_colours: Whether the program can read the masks by their colours instead, so that
            messages may advise it. Defaults to True.
    """

    masks_are: str = IDS
    ids: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] = dataclasses.field(default_factory=dict)
    other: int | None = None
    palette: LabelSet | None = None
    trusts_palettes: bool = False
    takes_colours: bool = True

    @classmethod
    def of_colours(cls, label_set: LabelSet, ignore_colour: Colour | None = None) -> "MaskRule":
        """Returns the rule for masks in the colours of the classes.

        Args:
            label_set: The classes, with the colours of the masks.
            ignore_colour: The (red, green, blue) of pixels to ignore. Defaults to none.
        """
        colours = {colour: label for label, colour in enumerate(label_set.colours)}
        if ignore_colour is not None:
            colours[ignore_colour] = label_set.ignore_label
        return cls(COLOURS, colours=colours)

    @classmethod
    def recorded(cls, masks_are: str, mask_colours: Iterable[Sequence[int]]) -> "MaskRule":
        """Returns the rule that a manifest or a run has recorded.

        Args:
            masks_are: `"ids"` or `"colours"`.
            mask_colours: Red, green, blue and class id of each colour.
        """
        colours = {(red, green, blue): label for red, green, blue, label in mask_colours}
        return cls(masks_are, colours=colours)

    @property
    def mask_colours(self) -> tuple[tuple[int, int, int, int], ...]:
        """Red, green, blue and class id of each colour, as manifests and runs record them."""
        if self.masks_are == IDS:
            return ()
        return tuple((*colour, label) for colour, label in self.colours.items())

    @property
    def ids_of_classes(self) -> set[int]:
        """The raw ids, besides 0, that the table makes another class than that of `other`."""
        labels_of_others = (self.other, IGNORE_LABEL)
        rules = (self.ids or {}).items()
        return {value for value, label in rules if value and label not in labels_of_others}

    @property
    def remedy(self) -> str:
        """What to do about palettes that do not fit the ids, for messages."""
        if not self.takes_colours:
            return "If the indices are right all the same, give --masks_are=ids"
        if self.palette is not None:
            return (
                "Give --masks_are=colours if the colours are right, or --masks_are=ids if the "
                "indices are"
            )
        return (
            "If the colours are the classes, write the colour of every class into the classes file "
            "(or, if they are there, give --masks_are=colours); if the indices are right all the "
            "same, give --masks_are=ids"
        )

    def __call__(self, path: Path, label_set: LabelSet) -> np.ndarray:
        """Reads a mask.

        Args:
            path: The file of the mask.
            label_set: The classes.

        Returns:
            Class ids, uint8 (height, width).

        Raises:
            BadInput: If the file cannot hold a mask, or holds ids or colours without a meaning.
        """
        mask = load_mask(path)
        if self.masks_are == COLOURS:
            return self._ids_of_colours(path, mask, label_set)
        values = mask_files.stored_values(path, mask)
        if mask.mode == "P":
            if self.palette is not None:
                _check_palette(path, mask, values, self.palette, self.remedy)
            if not self.trusts_palettes:
                known = self.ids or {*range(label_set.num_classes), label_set.ignore_label}
                palette = mask_files.palette_of(mask)
                mask_files.check_greys(path, palette, mask.histogram()[:256], known)
        if self.ids is None:
            _check_class_ids(path, values, label_set)
            return values
        return self._ids_of_values(path, mask, values)

    def _ids_of_values(self, path: Path, mask: Image.Image, values: np.ndarray) -> np.ndarray:
        """Returns the class ids of stored values by the table."""
        unknown = [value for value in _present(values) if value not in self.ids]
        if unknown and self.other is None:
            raise BadInput(path, f"has raw ids without a rule in the table: {_first(unknown, 20)}")
        is_for_white = self.ids_of_classes == {255} and self.ids.keys() <= {0, 255}
        if is_for_white and {*unknown} - {0} == {1}:
            raise BadInput(
                path,
                "has the raw id 1 without a rule, while the table is for masks of 0 and 255. Add a "
                "rule such as `1 -> 1`, or save the mask with the values of the others",
            )
        table = np.full(256, self.other or 0, np.uint8)
        for value, label in self.ids.items():
            table[value] = label
        greys = mask_files.shown_greys(mask) if unknown else None
        if greys is not None and (table[values] != table[greys[values]]).any():
            raise BadInput(
                path,
                f"stores {_first(_present(values), 5)}, but shows the grey values "
                f"{_first(_present(greys[values]), 5)}, for which the table has other rules. Save "
                "it as a grey PNG of 8 bits, or name every id in the table instead of `other`",
            )
        return table[values]

    def _ids_of_colours(self, path: Path, mask: Image.Image, label_set: LabelSet) -> np.ndarray:
        ids = np.empty((mask.height, mask.width), np.uint8)
        # One flag per colour, because a photograph has too many for a list.
        found = np.zeros(1 << 24, bool)
        all_known, has_known = True, False
        for rows, packed in mask_files.colour_bands(path, mask):
            labels, known = labels_of_colours(packed, self.colours)
            ids[rows] = np.where(known, labels, self.other or 0)
            found[packed[~known]] = True
            all_known &= bool(known.all())
            has_known |= bool(known.any())
        if all_known:
            return ids
        values = np.flatnonzero(found)
        first = _first([_triple(value) for value in values[:5].tolist()], 5, values.size)
        if self.other is None:
            raise BadInput(
                path,
                f"has {values.size} colours that belong to no class: {first}. Give each colour a "
                "class, in the classes file or a --remap table, or name it with --ignore_colour "
                "(tfrecords_tools.build_folder). If the masks hold class ids, give --masks_are=ids",
            )
        # A mask in RGB or with a palette that is wholly black can be one of colours.
        are_greys = values.any() and (values % 0x010101 == 0).all()
        is_grey = mask.mode in ("L", "1", "LA") or (are_greys and not has_known)
        self._check_other(path, values, first, label_set, is_grey=is_grey)
        return ids

    def _check_other(
        self, path: Path, values: np.ndarray, first: str, label_set: LabelSet, *, is_grey: bool
    ) -> None:
        """Rejects a mask whose colours are `other` only because it is not a mask of colours."""
        has_grey_rule = any(red == green == blue for red, green, blue in self.colours)
        if is_grey and not has_grey_rule:
            raise BadInput(
                path,
                f"is grey ({first}), but the remap table has no rule for a grey, and `other` does "
                "not stand for a whole mask. Add a rule such as `0 0 0 -> 0`, or save the mask in "
                "the colours of the others",
            )
        class_ids = {label * 0x010101 for label in range(1, label_set.num_classes)}
        if values.any() and class_ids >= {*values.tolist()} - {0}:
            raise BadInput(
                path,
                f"has the colours {first} without a rule, which look like class ids. If it holds "
                "ids, save it in the colours of the other masks; otherwise add rules for these "
                "colours to the remap table",
            )


# The rule for masks whose ids are class ids.
CLASS_IDS = MaskRule()


def labels_of_colours(
    packed: np.ndarray, colours: Mapping[Colour, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Looks colours up in a table.

    Args:
        packed: The colours as 0xRRGGBB, int32 of any shape.
        colours: Label of each (red, green, blue).

    Returns:
        The labels, uint8, and whether the table has the colour; where it has not, the label means
        nothing.
    """
    table = {red << 16 | green << 8 | blue: label for (red, green, blue), label in colours.items()}
    # No colour is -1, which stands before the first so that every colour has a row below it.
    keys, labels = np.array([(-1, 0), *sorted(table.items())], np.int32).T
    # A binary search for all pixels is faster than a comparison with each of 150 classes.
    rows = np.searchsorted(keys, packed, side="right") - 1
    return labels.astype(np.uint8)[rows], keys[rows] == packed


def count_ids(ids: np.ndarray) -> np.ndarray:
    """Returns the number of pixels of each id in a uint8 array, as int64 (256,)."""
    flat = ids.ravel()
    counts = np.zeros(256, np.int64)
    # In bands, because `bincount` first copies its input to 8 bytes per pixel.
    for start in range(0, flat.size, _VALUES_PER_BAND):
        counts += np.bincount(flat[start : start + _VALUES_PER_BAND], minlength=256)
    return counts


def check_ids(path: str | os.PathLike, ids: np.ndarray, label_set: LabelSet) -> None:
    """Raises `BadInput` unless every id is a class or the ignore label."""
    _check_class_ids(path, ids, label_set, remedy="")


def _check_class_ids(
    path: str | os.PathLike,
    ids: np.ndarray,
    label_set: LabelSet,
    remedy: str = (
        ". If they stand for other classes, give a --remap table with rules such as `128 -> 1`; if "
        "the masks are colours, write the colour of every class into the classes file"
    ),
) -> None:
    classes, ignored = label_set.num_classes, label_set.ignore_label
    # A comparison is much faster than counting the ids, and every mask is checked twice.
    outside = ids[(ids >= classes) & (ids != ignored)]
    if outside.size:
        raise BadInput(
            path,
            f"has ids that are not classes: {_first(_present(outside), 20)}; valid ids are 0 to "
            f"{classes - 1} and {ignored} (ignored){remedy}",
        )


def _check_palette(
    path: Path, mask: Image.Image, ids: np.ndarray, label_set: LabelSet, remedy: str
) -> None:
    """Finds indices that an image editor has renumbered while it kept the colours."""
    palette = mask.getpalette("RGB") or []
    for index in _present(ids):
        colour = tuple(palette[3 * index : 3 * index + 3])
        if index >= label_set.num_classes or colour == label_set.colours[index]:
            continue
        if colour in label_set.colours:
            shown = label_set.names[label_set.colours.index(colour)]
            raise BadInput(
                path,
                f"has a renumbered palette: index {index} is {label_set.names[index]!r} but has "
                f"the colour of {shown!r}. {remedy}",
            )


def _present(ids: np.ndarray) -> list[int]:
    return np.flatnonzero(count_ids(ids)).tolist()


def _triple(packed: int) -> str:
    return f"{packed >> 16} {packed >> 8 & 255} {packed & 255}"


def _first(values: Sequence, limit: int, total: int = 0) -> str:
    """Returns the first values, and how many more there are (of `total`, if given)."""
    more = max(len(values), total) - limit
    return ", ".join(str(value) for value in values[:limit]) + f" and {more} more" * (more > 0)
