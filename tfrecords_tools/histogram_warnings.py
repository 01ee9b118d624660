"""Warnings about class histograms that almost always mean an error in the masks or the lists."""

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

from kseg.data.datasets import LABEL_SETS
from kseg.data.manifests import Manifest

# Its labels are drawn from JSONs: there are no masks, no classes file and no --remap table.
_COCO = "tfrecords_tools.build_coco"
# Fractions of the labelled pixels, of all pixels, and of the labelled pixels.
_NEARLY_ALL, _MANY_IGNORED, _WORTH_COMPARING = 0.98, 0.5, 0.005
# Two classes are exchanged if their fractions differ between two splits by at least this factor,
# and the exchange makes the difference, as a logarithm, this many times smaller.
_DIFFERENT, _TIMES_BETTER = math.log(1.5), 3


def warnings(manifests: Sequence[Manifest]) -> list[str]:
    """Returns the warnings about the splits of a conversion.

    Args:
        manifests: One manifest per split, all with the same classes.
    """
    found = [text for manifest in manifests for text in _warnings_of_split(manifest)]
    found += _warnings_of_absent_classes(manifests)
    for first, second in itertools.combinations(manifests, 2):
        found += _warnings_of_exchanged_classes(first, second)
    return found


def fractions(manifest: Manifest) -> dict[int, float]:
    """Returns the fraction of all label pixels that each class and the ignore label have."""
    pixels = dict(enumerate(manifest.pixels_per_class))
    pixels[manifest.ignore_label] = manifest.pixels_ignored
    total = max(1, sum(pixels.values()))
    return {label: count / total for label, count in pixels.items()}


def _warnings_of_split(manifest: Manifest) -> Iterator[str]:
    ignored = fractions(manifest)[manifest.ignore_label]
    labelled = _labelled_fractions(manifest)
    present = [label for label, fraction in enumerate(labelled) if fraction]
    of_ignored = f"{100 * ignored:.3f} % of all pixels are ignored ({manifest.ignore_label})"
    where = f"in split {manifest.split!r}"
    empty = manifest.arguments.get("objects_without_pixels", {}).get(manifest.split)
    if empty:  # From build_coco: the number for each image.
        yield (
            f"{where} {sum(empty.values())} object(s) in {len(empty)} image(s) draw no pixel: they "
            f"are lines or lie outside of the image. The first is in {next(iter(empty))}"
        )
    if len(present) < 2:
        first = present[0] if present else 0
        finding = "no pixel is labelled"
        if present:
            finding = f"all labelled pixels are {manifest.names[first]!r}"
        if ignored:
            finding += f", and {of_ignored}"
        if manifest.scene_bands:  # The labels of scenes may be vectors.
            yield f"{where} {finding}. Are there other classes in the labels of these scenes?"
            return
        if manifest.tool == _COCO:
            yield f"{where} {finding}. Are there objects of other categories in its JSON?"
            return
        yield (
            f"{where} {finding}. If the masks have more classes, convert them with "
            "tfrecords_tools.build_folder and a --remap table of rules such as "
            f"`{first} -> {first}` and `{manifest.ignore_label} -> {0 if first else 1}`"
        )
        return
    largest = max(present, key=labelled.__getitem__)
    if labelled[largest] > _NEARLY_ALL:
        yield (
            f"{where} {100 * labelled[largest]:.3f} % of the labelled pixels are "
            f"{manifest.names[largest]!r}. Are the other classes in the labels of this split?"
        )
    if ignored > _MANY_IGNORED:
        cause = f"Is {manifest.ignore_label} a class in the labels?"
        if manifest.tool == _COCO:
            cause = (
                "Do the objects overlap that much? --object_overlap=first gives such pixels to the "
                "first object"
            )
        yield f"{where} {of_ignored}. {cause}"


def _warnings_of_absent_classes(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Yields a warning about classes without a pixel, which a part of a published set may have."""
    names = manifests[0].names
    published = {label_set.names for label_set in LABEL_SETS.values() if label_set.num_classes > 2}
    if names in published:
        return
    counts = [sum(pixels) for pixels in zip(*(m.pixels_per_class for m in manifests), strict=True)]
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        question = "Is the order of the classes file that of the ids in the labels?"
        if manifests[0].tool == _COCO:
            question = "Do the JSONs have no object of these categories?"
        yield (
            f"no pixel of any split is {', '.join(map(repr, absent[:10]))}"
            + f" and {len(absent) - 10} more classes" * (len(absent) > 10)
            + f". {question}"
        )


def _warnings_of_exchanged_classes(first: Manifest, second: Manifest) -> Iterator[str]:
    pairs = list(zip(_labelled_fractions(first), _labelled_fractions(second), strict=True))
    common = [label for label, pair in enumerate(pairs) if min(pair) > _WORTH_COMPARING]
    for one, two in itertools.combinations(common, 2):
        here, there = zip(pairs[one], pairs[two], strict=True)
        # Small splits differ in all classes.
        noise = [_difference(*pairs[label]) for label in common if label not in (one, two)]
        usual = statistics.median(noise) if noise else 0.0
        different = min(_difference(*pairs[one]), _difference(*pairs[two]))
        exchanged = max(_difference(here[0], there[1]), _difference(here[1], there[0]))
        if different > max(_DIFFERENT, _TIMES_BETTER * max(usual, exchanged)):
            names = [
                f"{first.names[label]!r} has {100 * pairs[label][0]:.3f} % and "
                f"{100 * pairs[label][1]:.3f} %"
                for label in (one, two)
            ]
            question = "Do the masks of both splits have the same ids?"
            if first.tool == _COCO:
                question = "Do the categories of both JSONs mean the same?"
            yield (
                f"two classes seem to be exchanged between splits {first.split!r} and "
                f"{second.split!r}: {' but '.join(names)} of the labelled pixels. {question}"
            )


def _labelled_fractions(manifest: Manifest) -> list[float]:
    total = max(1, sum(manifest.pixels_per_class))
    return [count / total for count in manifest.pixels_per_class]


def _difference(first: float, second: float) -> float:
    return abs(math.log(first / second))
