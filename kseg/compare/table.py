"""The table that sets runs side by side, as text, Markdown or CSV."""

import csv
import io
import math
import statistics
from collections.abc import Sequence

from kseg.compare.runs import Run, grouped, protocol_differences
from kseg.inference import counting

COLUMNS = (
    "run",
    "context",
    "backbone",
    "parameters",
    "multiply-adds",
    "mIoU",
    "protocol",
    "best val mIoU",
    "minutes",
)
_MISSING = "-"


def table(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Rows of the table, best mIoU first if all were measured alike, else in the order given."""
    groups = grouped(runs)
    if not protocol_differences(runs):
        groups.sort(key=lambda group: -statistics.fmean(run.miou for run in group))
    costs: dict[tuple, tuple[int, int]] = {}
    return [_row(group, costs) for group in groups]


def _row(group: list[Run], costs: dict) -> dict[str, str]:
    run = group[0]
    parameters, multiply_adds = _cost(run, costs)
    names = ", ".join(one.name for one in group)
    return dict(
        zip(
            COLUMNS,
            (
                names,
                run.experiment.context or run.experiment.model,
                run.experiment.backbone,
                f"{parameters:,}",
                f"{multiply_adds / 1e9:.1f} G",
                _figure([one.miou for one in group]),
                run.protocol,
                _figure([one.best_val_miou for one in group]),
                _figure([one.minutes for one in group], digits=1),
            ),
            strict=True,
        )
    )


def _cost(run: Run, known: dict) -> tuple[int, int]:
    """Trainable parameters, and multiply-adds of a training crop; counted once an architecture."""
    experiment = run.but_for_the_seed()
    experiment_key = (run.num_classes, experiment)
    if experiment_key not in known:
        model = experiment.build_model(run.num_classes, with_backbone_weights=False)
        key = (run.num_classes, model.to_json(), experiment.crop_size)
        if key not in known:
            multiply_adds = counting.cost(model, (1, *experiment.crop_size, 3)).multiply_adds
            known[key] = counting.parameters(model), multiply_adds
        known[experiment_key] = known[key]
    return known[experiment_key]


def _figure(values: list[float], digits: int = 4) -> str:
    """The mean; with several values their standard deviation and number besides."""
    if any(math.isnan(value) for value in values):
        return _MISSING
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f} ({len(values)} seeds)"
    return text


def to_text(rows: Sequence[dict[str, str]]) -> str:
    """The table in columns, for a screen."""
    lines = [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]
    widths = {name: max(len(line[name]) for line in lines) for name in COLUMNS}
    return "\n".join(
        "  ".join(f"{line[name]:<{widths[name]}}" for name in COLUMNS).rstrip() for line in lines
    )


def to_markdown(rows: Sequence[dict[str, str]]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row[name] for name in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[dict[str, str]]) -> str:
    """The table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
