"""`labels.json` beside an exported model: the names and colours of its classes."""

import dataclasses
import json
from pathlib import Path

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.data.scene_bands import SceneBands

NAME = "labels.json"


def write(folder: Path, label_set: LabelSet, scene_bands: SceneBands | None = None) -> None:
    """Writes the file.

    Args:
        folder: The folder.
        label_set: The classes.
        scene_bands: How the images of the run were made from scenes. Defaults to None: they were
            not.
    """
    content = dataclasses.asdict(label_set)
    if scene_bands is not None:
        content["scene_bands"] = scene_bands.to_json()
    files.write_text(folder / NAME, json.dumps(content, indent=1) + "\n")
