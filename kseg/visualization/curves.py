"""The curves of val mIoU while runs trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kseg import files
from kseg.errors import UserError, missing_extra


def require() -> None:
    """Raises `UserError` unless matplotlib, of the extra `figures`, is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_extra("figures", "`--figure`", error) from error


def draw(curves: Mapping[str, Sequence[tuple[int, float]]], path: str | Path) -> None:
    """Draws val mIoU against steps, a line a run, as a PNG.

    Args:
        curves: Name of a run -> its (step, val mIoU); a run without any is left out.
        path: File to write, in an existing folder.

    Raises:
        UserError: matplotlib is not installed, or no run has measured anything while it trained.
    """
    require()
    from matplotlib.figure import Figure

    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise UserError("`--figure`: none of the runs has a val mIoU in its metrics.csv")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(xlabel="step", ylabel="val mIoU", title="mIoU while training")
    axes.grid(alpha=0.3)
    axes.legend()
    with files.atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
