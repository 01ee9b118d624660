"""Draws the validation mIoU of runs over their training steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kseg import files
from kseg.errors import UserError, missing_extra


def require_matplotlib(what: str = "`--figure`") -> None:
    """Raises `UserError` unless matplotlib, of the extra `figures`, is installed.

    Args:
        what: What needs it, for the message.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_extra("figures", what, error) from error


def draw(curves: Mapping[str, Sequence[tuple[int, float]]], path: str | Path) -> None:
    """Draws one line of val mIoU over steps per run, and writes it as a PNG.

    Args:
        curves: Name of each run -> its (step, val mIoU) pairs. Runs without any are left out.
        path: File to write. A missing folder is created.

    Raises:
        UserError: If matplotlib is not installed, or no run was validated during training.
    """
    require_matplotlib()
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise UserError(
            "`--figure` needs at least one run with a val mIoU in its metrics.csv. Received none."
        )
    figure, axes = _axes()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    _save(figure, path)


def draw_bands(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]], path: str | Path
) -> None:
    """Draws one line of mean val mIoU over steps with a band of its deviation, as a PNG.

    Args:
        curves: Name -> steps, means and deviations. The band is mean ± deviation.
        path: File to write. A missing folder is created.

    Raises:
        UserError: If matplotlib is not installed.
    """
    require_matplotlib("the figure")
    figure, axes = _axes()
    for name, (steps, means, deviations) in curves.items():
        (line,) = axes.plot(steps, means, marker="o", markersize=2, label=name)
        low, high = (
            [mean + sign * spread for mean, spread in zip(means, deviations, strict=True)]
            for sign in (-1, 1)
        )
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    _save(figure, path)


def _axes() -> tuple:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="step", ylabel="val mIoU", title="mIoU during training")
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure, path: str | Path) -> None:
    figure.axes[0].legend()
    with files.atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
