"""Compares runs: python -m kseg.compare runs/*

Prints a table of the settings and scores of each run, and writes it as Markdown or CSV if asked
for, with a plot of the mIoU curves. Runs that differ only in the seed and were measured alike share
a row, with mean and standard deviation. Runs are ranked only if all were measured alike, that is,
with the same protocol, split and kind of checkpoint. Arguments that are not runs are named and left
out.

`--images`, `--features` and `--receptive_field` draw figures as in the papers from the best
checkpoints: see `kseg.visualization.prediction_sheet`, `features` and `receptive_field`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from kseg import cli, files
from kseg.compare.runs import change_lines, find_runs, protocol_differences, read_run
from kseg.compare.table import table, to_csv, to_markdown, to_text
from kseg.data.images import find_images, read_image
from kseg.data.masks import MASKS_ARE
from kseg.errors import UserError
from kseg.inference.backend import require_tensorflow
from kseg.runs.folder import RunFolder
from kseg.visualization import curves, run_figures
from kseg.visualization.features import Features
from kseg.visualization.prediction_sheet import PredictionSheet
from kseg.visualization.receptive_field import ReceptiveField

LESS_MEMORY = (
    "Less is needed with smaller files for `--images`, `--features` and `--receptive_field`"
)
_WRITERS = {".md": to_markdown, ".csv": to_csv}


def define_flags() -> None:
    """Defines the flags of the program."""
    flags.DEFINE_list("table", [], "Files to write the table to, .md or .csv.")
    cli.define_alias("output", "table")
    flags.DEFINE_string("figure", "", "PNG file for a plot of the mIoU curves. Empty: no plot.")
    flags.DEFINE_string(
        "images", "", "Quoted glob of images. Draws sheet.png: the predictions, one row per image."
    )
    flags.DEFINE_string(
        "labels", "", "Folder of masks NAME.png, drawn in the last column of sheet.png."
    )
    flags.DEFINE_enum(
        "masks_are",
        None,
        list(MASKS_ARE),
        "What the masks of --labels hold. Default: what those of the first run held.",
    )
    flags.DEFINE_string(
        "features", "", "Image file. Draws features.png: the feature maps of each dilation rate."
    )
    flags.DEFINE_string(
        "receptive_field",
        "",
        "Image file. Draws receptive_field.png: gradients of the class of one pixel.",
    )
    flags.DEFINE_list("pixel", [], "ROW,COLUMN for --receptive_field. Empty: the middle.")
    flags.DEFINE_string(
        "output_dir",
        "",
        "Folder for sheet.png, features.png and receptive_field.png. Empty: the folder of the "
        "first file of --table, or the current folder without --table.",
    )


def requested_figures(
    values: flags.FlagValues, runs: Sequence[RunFolder]
) -> list[run_figures.Figure]:
    """Creates the figures that the flags ask for.

    Args:
        values: The flags of the program.
        runs: The runs that will be added to the figures.

    Returns:
        New figures, to which no run has been added.

    Raises:
        UserError: If a flag is invalid or needs another one, an image or mask cannot be read, or
            the runs have different classes.
    """
    for name, needed in (
        ("labels", "images"),
        ("masks_are", "labels"),
        ("pixel", "receptive_field"),
    ):
        if getattr(values, name) and not getattr(values, needed):
            raise UserError(f"`--{name}` needs `--{needed}`")
    figures = []
    if values.images:
        images = find_images(values.images, None)
        figures.append(PredictionSheet(runs, images, values.labels, _read_image, values.masks_are))
    if values.features:
        figures.append(Features(_read_image(values.features)))
    if values.receptive_field:
        figures.append(ReceptiveField(_read_image(values.receptive_field), values.pixel))
    return figures


def _read_image(path: str | Path) -> np.ndarray:
    try:
        return read_image(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def main(values: flags.FlagValues, paths: list[str]) -> int:
    """Prints the table and writes the files; returns 1 if the runs cannot be ranked, else 0."""
    require_tensorflow("kseg.compare")
    table_files = [Path(name) for name in values.table]
    for path in table_files:
        if path.suffix not in _WRITERS:
            raise UserError(f"`--table` must end in .md or .csv. Received: {path}")
    if values.figure and not values.figure.endswith(".png"):
        raise UserError(f"`--figure` must end in .png. Received: {values.figure}")
    if values.figure:
        curves.require_matplotlib()  # Before the table, which takes seconds.
    run_folders, others = find_runs(paths)
    if others:
        print(f"left out, since they are not runs: {', '.join(others)}", file=sys.stderr)
    runs = list(map(read_run, run_folders, run_figures.run_names(run_folders)))
    figures = requested_figures(values, run_folders)
    rows = table(runs)
    print(to_text(rows))
    if changes := change_lines(runs):
        print("changed while they were trained:\n  " + "\n  ".join(changes))
    for path in table_files:
        with cli.writing({"table": path}):
            files.write_text(path, _WRITERS[path.suffix](rows))
    if values.figure:
        with cli.writing({"figure": values.figure}):
            curves.draw({run.name: run.curve for run in runs}, values.figure)
    if written := [name for name in (*values.table, values.figure) if name]:
        print(f"written: {', '.join(written)}")
    if figures:
        folder = values.output_dir or (table_files[0].parent if table_files else ".")
        with cli.writing({"output_dir": folder}):
            run_figures.draw(figures, run_folders, folder)
    differences = protocol_differences(runs)
    if not differences:
        return 0
    print("\nnot ranked, since the runs were not measured alike (use python -m kseg.evaluate):")
    print("\n".join(f"  {line}" for line in differences))
    return 1


if __name__ == "__main__":
    cli.run(main, define_flags, takes_arguments=True, less_memory=LESS_MEMORY)
