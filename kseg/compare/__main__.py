"""Sets runs side by side: python -m kseg.compare runs/*

A table of what each run is and reached, as text, Markdown or CSV, and a picture of the mIoU curves.
Runs that differ in nothing but the seed and were measured alike are one row, with mean and standard
deviation. Runs that were not measured alike (protocol, split, best or newest checkpoint) are not
ranked. What is no run is named and left out.

`--images`, `--features` and `--receptive_field` draw the papers' figures from the best checkpoints:
see `kseg.visualization.sheet`, `features` and `receptive_field`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from kseg import cli, files
from kseg.compare.runs import find_runs, protocol_differences, read_run
from kseg.compare.table import table, to_csv, to_markdown, to_text
from kseg.data.images import find_images, read_image
from kseg.errors import UserError
from kseg.inference.backend import require_tensorflow
from kseg.inference.scorer import classifier
from kseg.runs.folder import RunFolder
from kseg.visualization import curves, draw_all
from kseg.visualization.features import Features
from kseg.visualization.receptive_field import ReceptiveField
from kseg.visualization.sheet import Sheet


def asked_figures(values: flags.FlagValues, runs: Sequence[RunFolder]) -> list[draw_all.Figure]:
    """The figures of `kseg.figures` that the flags ask for, ready for `add`.

    Raises:
        UserError: A flag is wrong or without its partner, a file cannot be read, or the runs do
            not fit on one sheet.
    """
    for name, partner in (("labels", "images"), ("pixel", "receptive_field")):
        if getattr(values, name) and not getattr(values, partner):
            raise UserError(f"`--{name}` needs `--{partner}`")
    figures = []
    if values.images:
        paths = find_images(values.images, None)
        figures.append(Sheet(runs, paths, values.labels, _read_image, classifier))
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


_WRITERS = {".md": to_markdown, ".csv": to_csv}


def define_flags() -> None:
    flags.DEFINE_list("output", [], "Files to write the table to, .md or .csv.")
    flags.DEFINE_string("figure", "", "File to draw the mIoU curves to, .png; empty: none.")
    flags.DEFINE_string("images", "", "Glob of photographs, in quotes, for sheet.png: a row each.")
    flags.DEFINE_string("labels", "", "Folder of masks NAME.png for the last column of --images.")
    flags.DEFINE_string("features", "", "Photograph for features.png: maps of each dilation rate.")
    flags.DEFINE_string("receptive_field", "", "Photograph for receptive_field.png: gradients.")
    flags.DEFINE_list("pixel", [], "ROW,COLUMN of --receptive_field; empty: the middle.")
    flags.DEFINE_string(
        "output_dir",
        "",
        "Folder of sheet.png, features.png and receptive_field.png; empty: that of the first "
        "--output, else the current one.",
    )


def main(values: flags.FlagValues, paths: list[str]) -> int:
    """Prints the table; returns 1 if the runs cannot be ranked."""
    require_tensorflow("kseg.compare")
    outputs = [Path(name) for name in values.output]
    for path in outputs:
        if path.suffix not in _WRITERS:
            raise UserError(f"`--output` must end in .md or .csv. Received: {path}")
    if values.figure and not values.figure.endswith(".png"):
        raise UserError(f"`--figure` must end in .png. Received: {values.figure}")
    if values.figure:
        curves.require()  # Before the table: it takes seconds.
    run_folders, others = find_runs(paths)
    if others:
        print(f"no runs, left out: {', '.join(others)}", file=sys.stderr)
    runs = [read_run(folder) for folder in run_folders]
    figures = asked_figures(values, run_folders)
    rows = table(runs)
    print(to_text(rows))
    for path in outputs:
        files.write_text(path, _WRITERS[path.suffix](rows))
    if values.figure:
        curves.draw({run.name: run.curve for run in runs}, values.figure)
    if written := [name for name in (*values.output, values.figure) if name]:
        print(f"written: {', '.join(written)}")
    if figures:
        default = outputs[0].parent if outputs else "."
        draw_all.draw(figures, run_folders, values.output_dir or default)
    differences = protocol_differences(runs)
    if not differences:
        return 0
    print("\nnot ranked: the runs were not measured alike (python -m kseg.evaluate):")
    print("\n".join(f"  {line}" for line in differences))
    return 1


if __name__ == "__main__":
    cli.run(main, define_flags, takes_arguments=True)
