"""Writes the tables of the papers' rows, paper_rows.md: python experiments/paper_rows.py

A flagfile that reproduces rows of a paper describes them at its head, in comments of this form:

    # Paper: KSAC, Table 1, row "KSAC, Xception-65"
    # Reported: 85.96 mIoU, VOC val
    # Evaluate: --scales=0.5,0.75,1.0,1.25,1.5,1.75 --flip

`Paper` begins a row. `Evaluate` holds flags of `kseg.evaluate`; without it the result is that of
single scale and whole images. `Predict` takes its place where only a server has the labels, and
holds flags of `kseg.predict`.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "paper_rows.md"
PAPERS = ("KSAC", "LKSPP", "Vortex pooling", "GCN", "DFP")
_LINE = re.compile(r"# (Paper|Reported|Evaluate|Predict): (.+)")
_INIT_FROM = re.compile(r"^--init_from=runs/(.+)$", re.MULTILINE)
_INTRODUCTION = """\
# The papers' rows

`python experiments/paper_rows.py` writes this page from the heads of the flagfiles: change those
and run it again. [README.md](README.md#the-papers-runs) has the commands and notes on the papers.
"""


@dataclasses.dataclass
class Row:
    """A row of a paper: the run that reproduces it, and what the paper reports."""

    run: str
    paper: str
    where: str
    reported: str = ""
    evaluate: str = ""
    predict: str = ""

    def __str__(self) -> str:
        flags = "single scale, whole images"
        if self.evaluate:
            flags = f"`{self.evaluate}`"
        elif self.predict:
            flags = f"of `kseg.predict`: `{self.predict}`"
        return f"| {self.where} | `{self.run}` | {flags} | {self.reported} |"


def read_rows(path: Path) -> list[Row]:
    """Reads the rows at the head of a flagfile.

    Raises:
        ValueError: A line comes before any `Paper` line or twice in a row, the paper is unknown, or
            a row lacks the `Reported` line or has both kinds of flags.
    """
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        key, value = match.groups()
        if key == "Paper":
            paper, _, where = value.partition(", ")
            if paper not in PAPERS:
                raise ValueError(f"{path}: {paper!r} must be one of {', '.join(PAPERS)}")
            rows.append(Row(path.stem, paper, where))
        elif not rows or getattr(rows[-1], key.lower()):
            raise ValueError(f"{path}: this line must follow a `Paper` line, once: {line}")
        else:
            setattr(rows[-1], key.lower(), value)
    for row in rows:
        if not row.reported or (row.evaluate and row.predict):
            raise ValueError(
                f"{path}: {row.where!r} must have a `Reported` line, and `Evaluate` or `Predict` "
                "but not both"
            )
    return rows


def stages(run: str) -> list[str]:
    """The runs that a run begins from, in the order of training, and the run itself."""
    match = _INIT_FROM.search((FOLDER / f"{run}.flags").read_text(encoding="utf-8"))
    return [*(stages(match[1]) if match else ()), run]


def page() -> str:
    """The text of paper_rows.md."""
    rows = [row for path in FOLDER.glob("*.flags") for row in read_rows(path)]
    rows.sort(key=lambda row: (_first_number(row.where), _natural(row.run)))
    sections = (_section(paper, [row for row in rows if row.paper == paper]) for paper in PAPERS)
    return "\n".join((_INTRODUCTION, *sections))


def _section(paper: str, rows: list[Row]) -> str:
    lines = [
        f"## {paper}",
        "| row | run | flags of `kseg.evaluate` | the paper reports |",
        "|---|---|---|---|",
        *map(str, rows),
    ]
    chains = [stages(run) for run in dict.fromkeys(row.run for row in rows)]
    if listed := list(_longest(chains)):
        lines += ["", "Stages, in the order of training:"]
        lines += [f"- {', '.join(f'`{run}`' for run in chain)}" for chain in listed]
    return "\n".join(lines) + "\n"


def _longest(chains: list[list[str]]) -> Iterator[list[str]]:
    """The chains of several stages that no longer chain begins with."""
    for chain in chains:
        longer = [found for found in chains if len(found) > len(chain)]
        if len(chain) > 1 and not any(found[: len(chain)] == chain for found in longer):
            yield chain


def _natural(text: str) -> list[str]:
    """A key that sorts k3 before k11."""
    return [part.zfill(9) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _first_number(text: str) -> int:
    return int(re.search(r"\d+", text)[0])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
