"""The rows of a benchmark: printed as a table, and written to a CSV or JSON file."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence

from kseg.files import write_text

Quartiles = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row; every further field is a `column`.

    Attributes:
        setting: What the rows of one table have in common, such as the size of the images.
        device: GPU or processor. Where `xla` is None, it is always the processor.
        backend: Backend of Keras.
        dtype: Precision of the products; empty where nothing is computed by the backend.
        xla: Whether XLA compiled what is measured; None where nothing is computed by the backend.
    """

    setting: str
    device: str = ""
    backend: str = ""
    dtype: str = "float32"
    xla: bool | None = False

    @property
    def heading(self) -> str:
        """What the rows of one table have in common, as a line of text."""
        conditions = [self.setting, self.device, self.backend, self.dtype]
        if self.xla is not None:
            conditions.append("XLA" if self.xla else "no XLA")
        return ", ".join(filter(None, conditions))


def column(help: str, number: str | Callable = "") -> dataclasses.Field:
    """Returns a field of a `Row` that is printed as a column.

    Quartiles are printed as "median (lower..upper)"; for None see `markdown`.

    Args:
        help: What the column holds, for the legend.
        number: Format specification of the numbers, or a function that formats one.
    """
    return dataclasses.field(metadata={"help": help, "number": number})


def millions(value: float) -> str:
    """Formats a count in millions."""
    return f"{value / 1e6:,.0f} M"


def legend(row_class: type[Row]) -> str:
    """Returns one line for each column: its name and what it holds."""
    fields = _columns(row_class)
    width = max(len(field.name) for field in fields)
    return "\n".join(f"{_title(field):<{width}}  {field.metadata['help']}" for field in fields)


def markdown(rows: Sequence[Row], *, missing: str = "") -> str:
    """Returns a Markdown table of rows of one class.

    Args:
        rows: At least one row.
        missing: What a cell without a value says; columns without any value are then left out.
            Empty: such cells are empty.
    """
    columns = []
    for field in _columns(type(rows[0])):
        values = [getattr(row, field.name) for row in rows]
        if missing and all(value in (None, "") for value in values):
            continue
        cells = [_cell(value, field.metadata["number"]) or missing for value in values]
        width = max(map(len, [_title(field), *cells]))
        align = str.ljust if field.type is str else str.rjust
        columns.append([align(cell, width) for cell in (_title(field), "-" * width, *cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def write(path: str, rows: Sequence[Row]) -> None:
    """Writes rows to a `.csv` or `.json` file; quartiles become three columns."""
    flat = [_flat(row) for row in rows]
    if path.endswith(".json"):
        text = json.dumps(flat, indent=1) + "\n"
    else:
        file = io.StringIO()
        writer = csv.DictWriter(file, list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        text = file.getvalue()
    write_text(path, text)


def _columns(row_class: type[Row]) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(row_class) if field.metadata]


def _title(field: dataclasses.Field) -> str:
    return field.name.replace("_", " ")


def _cell(value: str | float | Quartiles | None, number: str | Callable) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        lower, median, upper = (_cell(quartile, number) for quartile in value)
        return f"{median} ({lower}..{upper})"
    return number(value) if callable(number) else format(value, number)


def _flat(row: Row) -> dict:
    values = {}
    for name, value in dataclasses.asdict(row).items():
        if isinstance(value, tuple):
            values |= {f"{name}_{q}": v for q, v in zip(("q25", "q50", "q75"), value, strict=True)}
        else:
            values[name] = value
    return values
