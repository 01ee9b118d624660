"""The table that compares runs, as text, Markdown or CSV."""

import csv
import io
import math
import statistics
from collections.abc import Sequence

from kseg.compare.runs import Run, grouped, protocol_differences
from kseg.inference import counting

_MISSING = "n/a"


def table(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Returns the rows of the table, from the name of each column to its value.

    Rows are sorted by descending mIoU if all runs were measured alike; otherwise they keep the
    order of the runs. Columns without a value in any row are left out; a value that is missing in
    some rows is "n/a" there.

    Args:
        runs: At least one run.

    Returns:
        One dict per row. All have the same keys in the same order.
    """
    groups = grouped(runs)
    if not protocol_differences(runs):
        groups.sort(key=lambda group: -statistics.fmean(run.miou for run in group))
    costs: dict[tuple, tuple[int, int]] = {}
    rows = [_row(group, costs) for group in groups]
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return [
        {name: _MISSING if row[name] is None else row[name] for name in columns} for row in rows
    ]


def _row(group: list[Run], costs: dict) -> dict[str, str | None]:
    """Returns the row of runs that differ only in the seed; None stands for a missing value."""
    run = group[0]
    parameters, multiply_adds = _cost(run, costs)
    return {
        "run": ", ".join(member.name for member in group),
        "context": run.experiment.context or run.experiment.model,
        "backbone": run.experiment.backbone,
        "parameters": f"{parameters:,}",
        "multiply-adds": f"{multiply_adds / 1e9:.1f} G",
        "mIoU": _mean([member.miou for member in group]),
        "protocol": run.protocol,
        "best val mIoU": _mean([member.best_val_miou for member in group]),
        "minutes": _mean([member.minutes for member in group], digits=1),
    }


def _cost(run: Run, known: dict) -> tuple[int, int]:
    """Returns trainable parameters and multiply-adds of a training crop.

    They are counted once per architecture, as it is applied; `known` keeps the results.
    """
    experiment = run.without_seed()
    experiment_key = (run.num_classes, experiment)
    if experiment_key not in known:
        model = experiment.build_model(run.num_classes, with_backbone_weights=False)
        model = model.without_auxiliary()
        key = (run.num_classes, model.to_json(), experiment.crop_size)
        if key not in known:
            multiply_adds = counting.cost(model, (1, *experiment.crop_size, 3)).multiply_adds
            known[key] = counting.parameters(model), multiply_adds
        known[experiment_key] = known[key]
    return known[experiment_key]


def _mean(values: list[float], digits: int = 4) -> str | None:
    """Returns the mean, of several values also their standard deviation and number."""
    if any(math.isnan(value) for value in values):
        return None
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f} ({len(values)} seeds)"
    return text


def to_text(rows: Sequence[dict[str, str]]) -> str:
    """Formats the table in aligned columns for a terminal."""
    lines = [{name: name for name in rows[0]}, *rows]
    widths = {name: max(len(line[name]) for line in lines) for name in rows[0]}
    return "\n".join(
        "  ".join(f"{value:<{widths[name]}}" for name, value in line.items()).rstrip()
        for line in lines
    )


def to_markdown(rows: Sequence[dict[str, str]]) -> str:
    """Formats the table as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[dict[str, str]]) -> str:
    """Formats the table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
