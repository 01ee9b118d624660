"""The figures of an evaluation as text, as plain values for JSON, and as CSV."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.recipe.metrics import Scores

BACKGROUND = "background"  # Name of class 0 where a data set has what belongs to no class.
CONFUSIONS = 5  # listed below the table


def table(label_set: LabelSet, figures: Scores) -> str:
    """The figures as lines of text, one class a line; classes without pixels show n/a."""
    totals = _totals(label_set, figures)
    width = max(map(len, (*label_set.names, *totals)))
    lines = [f"{'class':<{width}}  {'IoU':>6}  {'pixels':>12}"]
    for name, iou, support in zip(label_set.names, figures.iou, figures.support, strict=True):
        lines.append(f"{name:<{width}}  {_figure(iou):>6}  {support:>12,}")
    for name, value in totals.items():
        note = f"  over {_present(figures)} classes present" if name == "mIoU" else ""
        lines.append(f"{name:<{width}}  {_figure(value):>6}{note}")
    return "\n".join([*lines, *confusions(label_set, figures)])


def _totals(label_set: LabelSet, figures: Scores) -> dict[str, float]:
    """What is measured over all classes, by the name that the screen and the CSV give it."""
    totals = {"mIoU": figures.miou}
    if BACKGROUND in label_set.names:
        totals["mIoU without background"] = miou_without_background(label_set, figures)
    if label_set.num_classes == 2:
        totals[f"{label_set.names[1]} IoU"] = figures.iou[1]
    totals["pixel accuracy"] = figures.pixel_accuracy
    if figures.boundary_accuracy is not None:
        totals["boundary accuracy"] = figures.boundary_accuracy
        totals["internal accuracy"] = figures.internal_accuracy
    return totals


def confusions(label_set: LabelSet, figures: Scores, most: int = CONFUSIONS) -> list[str]:
    """Lines that name what is most often taken for what, by pixels; none if all is right."""
    wrong = figures.matrix * (1 - np.eye(label_set.num_classes, dtype=np.int64))
    lines = []
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        label, prediction = np.unravel_index(cell, wrong.shape)
        pixels = wrong[label, prediction]
        if pixels:
            share = pixels / figures.support[label]
            lines.append(
                f"{label_set.names[label]} taken for {label_set.names[prediction]}: "
                f"{pixels:,} pixels, {share:.1%} of its own"
            )
    return lines


def mean_over(label_set: LabelSet, figures: Scores, classes: Sequence[str]) -> float:
    """Mean IoU of the named classes alone.

    Raises:
        UserError: A name is no class, or a class has no labelled pixels.
    """
    unknown = [name for name in classes if name not in label_set.names]
    if unknown:
        raise UserError(
            f"`--classes` must be among {', '.join(label_set.names)}. Received: "
            + ", ".join(unknown)
        )
    chosen = [float(figures.iou[label_set.names.index(name)]) for name in classes]
    if math.isnan(sum(chosen)):
        raise UserError("`--classes` must all have labelled pixels in the split")
    return sum(chosen) / len(chosen)


def miou_without_background(label_set: LabelSet, figures: Scores) -> float:
    """Mean IoU over the classes present but the background; `nan` without any."""
    rest = [
        iou
        for name, iou in zip(label_set.names, figures.iou, strict=True)
        if name != BACKGROUND and not math.isnan(iou)
    ]
    return float(np.mean(rest)) if rest else math.nan


def report(label_set: LabelSet, figures: Scores) -> dict:
    """The figures as plain values for JSON; None for what no labelled pixel speaks for."""
    content = {"miou": figures.miou}
    if BACKGROUND in label_set.names:
        content["miou_without_background"] = _plain(miou_without_background(label_set, figures))
    if label_set.num_classes == 2:
        content["foreground_iou"] = _plain(figures.iou[1])
    content["pixel_accuracy"] = figures.pixel_accuracy
    if figures.boundary_accuracy is not None:
        content["boundary_accuracy"] = _plain(figures.boundary_accuracy)
        content["internal_accuracy"] = _plain(figures.internal_accuracy)
    return content | {
        "iou": dict(zip(label_set.names, map(_plain, figures.iou), strict=True)),
        "pixels": dict(zip(label_set.names, map(int, figures.support), strict=True)),
        "confusion_matrix": figures.matrix.tolist(),
    }


def csv_text(label_set: LabelSet, figures: Scores) -> str:
    """A row a class: id, name, IoU (empty: n/a), labelled pixels, and as what they were taken.

    Below, rows without an id: a total's name, and its value in the column of the IoU.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "class", "iou", "pixels", *(f"as {n}" for n in label_set.names)])
    for index, name in enumerate(label_set.names):
        iou = _plain(figures.iou[index])
        writer.writerow([index, name, iou, figures.support[index], *figures.matrix[index]])
    for name, value in _totals(label_set, figures).items():
        writer.writerow([None, name, _plain(value), *[None] * (1 + label_set.num_classes)])
    return file.getvalue()


def _present(figures: Scores) -> int:
    return int((figures.support > 0).sum())


def _figure(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _plain(value) -> float | None:
    return None if math.isnan(value) else float(value)
