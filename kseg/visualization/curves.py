"""Draws the validation mIoU of runs over their training steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kseg import files
from kseg.errors import UserError, missing_extra


def require_matplotlib() -> None:
    """Raises `UserError` unless matplotlib, of the extra `figures`, is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_extra("figures", "`--figure`", error) from error


def draw(curves: Mapping[str, Sequence[tuple[int, float]]], path: str | Path) -> None:
    """Draws one line of val mIoU over steps per run, and writes it as a PNG.

    Args:
        curves: Name of each run -> its (step, val mIoU) pairs. Runs without any are left out.
        path: File to write. A missing folder is created.

    Raises:
        UserError: If matplotlib is not installed, or no run was validated during training.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise UserError(
            "`--figure` needs at least one run with a val mIoU in its metrics.csv. Received none."
        )
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(xlabel="step", ylabel="val mIoU", title="mIoU during training")
    axes.grid(alpha=0.3)
    axes.legend()
    with files.atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
