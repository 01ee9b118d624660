"""Which bands of a scene are the channels of an image, and how their values become 8 bits.

The manifest of a split that was cut from scenes, the folder of a run that was trained on it and the
exported model all hold this description, so that a scene is predicted as it was learned.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from kseg import files
from kseg.errors import UserError

DTYPES = ("uint8", "uint16", "int16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneBands:
    """The three bands of scenes that a network sees, and the limits of their values.

    Args:
        bands: Numbers of the bands, from 1, for red, green and blue. A number may be repeated.
        limits: For each of them the value that becomes 0 and the value that becomes 255. Values
            between them are scaled linearly and rounded; values beyond them become 0 or 255.
        dtype: Type of the values in the files, one of `DTYPES`.
        alpha: Whether a band that a file marks as alpha tells where there is no data. A band in
            `bands` never does. Defaults to True.

    Raises:
        UserError: A value breaks its rule.
    """

    bands: tuple[int, ...]
    limits: tuple[tuple[float, float], ...]
    dtype: str
    alpha: bool = True

    def __post_init__(self) -> None:
        bands = tuple(self.bands)
        limits = tuple((float(low), float(high)) for low, high in self.limits)
        object.__setattr__(self, "bands", bands)
        object.__setattr__(self, "limits", limits)
        if len(bands) != 3 or not all(isinstance(band, int) and band >= 1 for band in bands):
            raise UserError(
                f"`bands` must be three numbers of bands, counted from 1. Received: {bands}"
            )
        if len(limits) != 3 or not all(low < high for low, high in limits):
            raise UserError(
                "`limits` must be a lower and a higher value for each of the three bands. "
                f"Received: {limits}"
            )
        if self.dtype not in DTYPES:
            raise UserError(f"`dtype` must be one of {', '.join(DTYPES)}. Received: {self.dtype}")

    def to_image(self, values: np.ndarray) -> np.ndarray:
        """Scales the values of the three bands, (3, height, width), to uint8 (height, width, 3)."""
        if values.dtype == np.uint8 and all(pair == (0, 255) for pair in self.limits):
            scaled = values
        else:
            scaled = np.empty(values.shape, np.uint8)
            for channel, (low, high) in enumerate(self.limits):
                part = (values[channel].astype(np.float32) - low) * np.float32(255 / (high - low))
                scaled[channel] = np.rint(np.clip(part, 0, 255, out=part), out=part)
        return np.ascontiguousarray(np.moveaxis(scaled, 0, -1))

    def to_json(self) -> dict[str, Any]:
        """Returns the description as JSON content."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SceneBands":
        """Returns the description that `to_json` wrote.

        Raises:
            ValueError, TypeError: The content is not such a description.
        """
        return cls(**content)


# A run that was not trained on scenes reads a TIFF as a picture.
PICTURE = SceneBands(bands=(1, 2, 3), limits=((0, 255),) * 3, dtype="uint8")


def read_file(path: str | os.PathLike) -> SceneBands | None:
    """Reads the description from a file; None if there is no such file.

    Raises:
        UserError: The file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        return SceneBands.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"The bands of the scenes cannot be read from {path}: {error}") from error


def write_file(path: str | os.PathLike, bands: SceneBands) -> None:
    """Writes the description to a file, atomically."""
    files.write_text(path, json.dumps(bands.to_json(), indent=1) + "\n")
