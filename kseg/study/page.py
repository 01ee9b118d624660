"""The page of a study: Markdown and CSV."""

import csv
import datetime
import io
import math
import platform
from collections.abc import Mapping, Sequence

from kseg.benchmark import device
from kseg.compare.runs import change_lines
from kseg.compare.table import to_markdown
from kseg.study import statistics
from kseg.study.costs import REPETITIONS, Cost
from kseg.study.results import Difference, Module, common_start
from kseg.study.statistics import DRAWS, Interval

PAGE, TABLE, CURVES, SHEET = "study.md", "study.csv", "study.png", "disagreement.png"


def markdown(
    modules: Sequence[Module],
    differences: Sequence[Difference],
    costs: Mapping[str, Cost],
    *,
    command: str,
    missing: Sequence[str] = (),
    pictures: Sequence[str] = (CURVES, SHEET),
) -> str:
    """Returns the page.

    Args:
        modules: The modules, at least one.
        differences: Their differences to the first one.
        costs: Name of a flagfile -> cost of its network.
        command: The command of the study.
        missing: Runs that have no result, and why.
        pictures: Names of the pictures beside the page.
    """
    parts = ["# Study\n", _introduction(modules, command)]
    if missing:
        lines = "".join(f"- {line}\n" for line in missing)
        parts.append(f"## Runs without a result\n\n{lines}")
    parts.append(f"## Results\n\n{to_markdown(_rows(modules, costs))}\n{_notes(modules, costs)}")
    if differences:
        parts.append(_difference_section(modules, differences))
        parts.append(_class_section(modules, differences))
    elif len(modules) > 1:
        parts.append(f"No other module has a seed of {modules[0].name}, so nothing is compared.\n")
    if CURVES in pictures:
        parts.append(
            "## Training\n\nThe validations during training: the mean IoU over all classes, at a "
            "single scale. The lines are means over the seeds, the bands one sample standard "
            f"deviation on either side.\n\n![mIoU over steps]({CURVES})\n"
        )
    if SHEET in pictures:
        parts.append(
            "## Where the modules disagree\n\nThe images on which the predictions of the first "
            f"seeds differ in most pixels.\n\n![Predictions of the modules]({SHEET})\n"
        )
    if changed := change_lines([run.scores for module in modules for run in module.runs.values()]):
        lines = "".join(f"- {line}\n" for line in changed)
        parts.append(f"## Changed while they were trained\n\n{lines}")
    return "\n".join(parts)


def _introduction(modules: Sequence[Module], command: str) -> str:
    first = modules[0].first
    measured = first.scores.measured
    images = len(first.predictions.names)
    start = common_start([module.flagfile for module in modules])
    names = f" Names are those of the flagfiles without `{start}`." if start else ""
    score = "mIoU"
    if first.classes:
        score = f"the mean IoU over {', '.join(measured['mean_over']['classes'])}"
    versions = ", ".join(f"{name} {version}" for name, version in device.versions().items())
    return (
        f"```\n{command}\n```\n\n{datetime.date.today()}, {platform.node()}, {device.name()}, "
        f"{versions}. Scores are {score} in per cent on `{measured['split']}`, {images} images, "
        f"protocol: {measured['protocol']}, checkpoint: {measured['checkpoint']}.{names}\n"
    )


def _rows(modules: Sequence[Module], costs: Mapping[str, Cost]) -> list[dict[str, str]]:
    rows = []
    for module in modules:
        experiment, cost = module.first.run.experiment, costs[module.flagfile]
        memory = cost.memory_mib
        rows.append(
            {
                "name": module.name,
                "network": f"{experiment.context or experiment.model}, {experiment.backbone}",
                "parameters": f"{cost.parameters:,}",
                "multiply-adds": f"{cost.multiply_adds / 1e9:.2f} G",
                "latency": f"{cost.latency_ms:.1f} ms",
                "memory": "not measured" if memory is None else f"{memory:,.0f} MiB",
                "mean IoU": _mean_and_deviation(module.scores),
                "seeds": str(len(module.runs)),
            }
        )
    return rows


def _notes(modules: Sequence[Module], costs: Mapping[str, Cost]) -> str:
    sizes = {costs[module.flagfile].crop for module in modules}
    crops = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
    compiled = [module.flagfile for module in modules if costs[module.flagfile].compiled]
    xla = f" XLA compiled {', '.join(compiled)}." if compiled else ""
    return (
        f"Multiply-adds and latency are those of one image of the training crop ({crops}), "
        f"forward in float32; the latency is the median of {REPETITIONS} calls in turn.{xla} "
        "Memory is the peak of a process that takes two training steps with the batch and the "
        "precision of the flagfile on one device; that of the GPU if there is one. ± is the sample "
        "standard deviation over the seeds.\n"
    )


def _difference_section(modules: Sequence[Module], differences: Sequence[Difference]) -> str:
    rows = [
        {
            "name": difference.module,
            "difference": _points(difference.mean, signed=True),
            "95 % over seeds": _interval(difference.over_seeds),
            "95 % over images": _interval(difference.over_images),
            "seeds": ", ".join(map(str, difference.seeds)),
        }
        for difference in differences
    ]
    sentences = "".join(f"- {difference.sentence}\n" for difference in differences)
    several = ""
    if len(differences) > 1:
        several = (
            f" These are {len(differences)} comparisons: of twenty modules that do not differ from "
            "the first one, one is expected to have an interval without 0."
        )
    return (
        f"## Differences to {modules[0].name}\n\n{to_markdown(rows)}\nIn points of the score "
        "above, paired by seed. The interval over seeds is Student's t interval of the paired "
        "differences; it says how much the difference depends on the seed. The interval over "
        f"images is that of {DRAWS:,} bootstrap draws of the images, the same for all modules, "
        "averaged over the seeds; it says how much the difference of these trained networks "
        f"depends on the images.{several}\n\n{sentences}"
    )


def _class_section(modules: Sequence[Module], differences: Sequence[Difference]) -> str:
    first = modules[0]
    names = first.first.run.folder.label_set.names
    rows = []
    for index, name in enumerate(names):
        if math.isnan(first.class_iou[index]):
            continue
        row = {"class": name, f"{first.name}, IoU": _points(first.class_iou[index])}
        for difference in differences:
            row[difference.module] = _mean_and_deviation(difference.classes[:, index], signed=True)
        rows.append(row)
    return (
        f"## Differences by class\n\n{to_markdown(rows)}\nIoU of {first.name} in per cent, and the "
        "paired differences to it in points.\n"
    )


def table(
    modules: Sequence[Module], differences: Sequence[Difference], costs: Mapping[str, Cost]
) -> str:
    """Returns the CSV table: one row for each module, with fractions and not per cent."""
    by_name = {difference.module: difference for difference in differences}
    names = modules[0].first.run.folder.label_set.names
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            "flagfile", "network", "backbone", "parameters", "multiply_adds", "latency_ms",
            "memory_mib", "seeds", "score", "score_deviation", "difference", "seeds_low",
            "seeds_high", "images_low", "images_high", *(f"iou {name}" for name in names),
        ]
    )  # fmt: skip
    for module in modules:
        experiment, cost = module.first.run.experiment, costs[module.flagfile]
        row = [
            module.flagfile, experiment.context or experiment.model, experiment.backbone,
            cost.parameters, cost.multiply_adds, cost.latency_ms, cost.memory_mib,
            " ".join(map(str, module.runs)), statistics.mean(module.scores),
            _plain(statistics.deviation(module.scores)),
        ]  # fmt: skip
        difference = by_name.get(module.name)
        row.append(difference.mean if difference else None)
        row += (difference and difference.over_seeds) or (None, None)
        row += difference.over_images if difference else (None, None)
        writer.writerow([*row, *map(_plain, module.class_iou)])
    return file.getvalue()


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _points(value: float, *, signed: bool = False) -> str:
    return f"{100 * value:{'+' if signed else ''}.1f}"


def _mean_and_deviation(values: Sequence[float], *, signed: bool = False) -> str:
    text = _points(statistics.mean(values), signed=signed)
    if len(values) > 1:
        text += f" ± {_points(statistics.deviation(values))}"
    return text


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "none: one seed"
    return f"{_points(interval.low, signed=True)} to {_points(interval.high, signed=True)}"
