"""The scores of an evaluation as text, as values for JSON, and as CSV."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.recipe.metrics import Scores

BACKGROUND = "background"  # Name of class 0 in data sets with pixels that belong to no object.
CONFUSIONS = 5  # Number of confusions listed below the table.


def table(label_set: LabelSet, result: Scores) -> str:
    """Returns the scores as lines of text, one for each class; n/a for classes without pixels."""
    totals = _totals(label_set, result)
    width = max(map(len, (*label_set.names, *totals)))
    lines = [f"{'class':<{width}}  {'IoU':>6}  {'pixels':>12}"]
    for name, iou, support in zip(label_set.names, result.iou, result.support, strict=True):
        lines.append(f"{name:<{width}}  {_formatted(iou):>6}  {support:>12,}")
    for name, value in totals.items():
        note = f"  over {_present(result)} classes present" if name == "mIoU" else ""
        lines.append(f"{name:<{width}}  {_formatted(value):>6}{note}")
    return "\n".join([*lines, *confusions(label_set, result)])


def _totals(label_set: LabelSet, result: Scores) -> dict[str, float]:
    """Returns the scores over all classes by the name that they have in the table and the CSV."""
    totals = {"mIoU": result.miou}
    if BACKGROUND in label_set.names:
        totals["mIoU without background"] = miou_without_background(label_set, result)
    if label_set.num_classes == 2:
        totals[f"{label_set.names[1]} IoU"] = result.iou[1]
    totals["pixel accuracy"] = result.pixel_accuracy
    if result.boundary_accuracy is not None:
        totals["boundary accuracy"] = result.boundary_accuracy
        totals["internal accuracy"] = result.internal_accuracy
    return totals


def confusions(label_set: LabelSet, result: Scores, most: int = CONFUSIONS) -> list[str]:
    """Returns lines on the most frequent confusions, by pixels; none if there are no errors."""
    wrong = result.matrix * (1 - np.eye(label_set.num_classes, dtype=np.int64))
    lines = []
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        label, prediction = np.unravel_index(cell, wrong.shape)
        pixels = wrong[label, prediction]
        if pixels:
            fraction = pixels / result.support[label]
            lines.append(
                f"{label_set.names[label]} predicted as {label_set.names[prediction]}: "
                f"{pixels:,} pixels, {fraction:.1%} of the class"
            )
    return lines


def check_classes(label_set: LabelSet, classes: Sequence[str]) -> None:
    """Raises `UserError` if a name that `--mean_over` holds is not that of a class."""
    unknown = [name for name in classes if name not in label_set.names]
    if unknown:
        raise UserError(
            f"`--mean_over` must hold names of classes, {', '.join(label_set.names)}. Received: "
            + ", ".join(unknown)
        )


def mean_over(
    label_set: LabelSet, result: Scores, classes: Sequence[str]
) -> tuple[float | None, str]:
    """Returns the mean IoU of the named classes, and a line that says it.

    The mean is None if one of the classes has no labelled pixels; then the line names it.
    """
    iou = {name: float(result.iou[label_set.names.index(name)]) for name in classes}
    line = f"mean IoU over {', '.join(classes)}: "
    if absent := [name for name in iou if math.isnan(iou[name])]:
        return None, f"{line}n/a, since the split has no labelled pixels of {', '.join(absent)}"
    mean = sum(iou[name] for name in classes) / len(classes)
    return mean, f"{line}{mean:.4f}"


def miou_without_background(label_set: LabelSet, result: Scores) -> float:
    """Returns the mean IoU over the classes present except the background; NaN without any."""
    rest = [
        iou
        for name, iou in zip(label_set.names, result.iou, strict=True)
        if name != BACKGROUND and not math.isnan(iou)
    ]
    return float(np.mean(rest)) if rest else math.nan


def report(label_set: LabelSet, result: Scores) -> dict:
    """Returns the scores as values for JSON; None for classes without labelled pixels."""
    content = {"miou": result.miou}
    if BACKGROUND in label_set.names:
        content["miou_without_background"] = _plain(miou_without_background(label_set, result))
    if label_set.num_classes == 2:
        content["foreground_iou"] = _plain(result.iou[1])
    content["pixel_accuracy"] = result.pixel_accuracy
    if result.boundary_accuracy is not None:
        content["boundary_accuracy"] = _plain(result.boundary_accuracy)
        content["internal_accuracy"] = _plain(result.internal_accuracy)
    return content | {
        "iou": dict(zip(label_set.names, map(_plain, result.iou), strict=True)),
        "pixels": dict(zip(label_set.names, map(int, result.support), strict=True)),
        "confusion_matrix": result.matrix.tolist(),
    }


def csv_text(label_set: LabelSet, result: Scores) -> str:
    """Returns a CSV table with a row for each class, and the scores over all classes below.

    The columns are the id, the name, the IoU (empty for n/a), the number of labelled pixels, and
    the number of these pixels that were predicted as each class. The rows of the scores over all
    classes have no id; their value is in the column of the IoU.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "class", "iou", "pixels", *(f"as {n}" for n in label_set.names)])
    for index, name in enumerate(label_set.names):
        iou = _plain(result.iou[index])
        writer.writerow([index, name, iou, result.support[index], *result.matrix[index]])
    for name, value in _totals(label_set, result).items():
        writer.writerow([None, name, _plain(value), *[None] * (1 + label_set.num_classes)])
    return file.getvalue()


def _present(result: Scores) -> int:
    return int((result.support > 0).sum())


def _formatted(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _plain(value) -> float | None:
    return None if math.isnan(value) else float(value)
