"""Files of a run that only record what happened: lists in JSON to which entries are added."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from kseg import files


def read(path: Path) -> list[dict]:
    """Returns the entries of a record.

    A missing file gives an empty list. So does a file that cannot be read, with a warning, since a
    run does not depend on it.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it is not a list of entries")
        return entries
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        print(f"warning: {path} is left out, since it cannot be read: {error}", file=sys.stderr)
        return []


def append(path: Path, entry: dict, guard: Callable[[], None] | None = None) -> None:
    """Adds an entry. A file that cannot be read is renamed to `<name>.damaged` first."""
    entries = read(path)
    if not entries and path.is_file():
        if guard:
            guard()
        os.replace(path, path.with_name(f"{path.name}.damaged"))
    files.write_text(path, json.dumps([*entries, entry], indent=1) + "\n", guard)
