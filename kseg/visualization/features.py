"""What each dilation rate of a context module sees: the feature maps of KSAC Fig. 5."""

import keras
import numpy as np
from PIL import Image

from kseg.errors import UserError
from kseg.runs.folder import RunFolder
from kseg.visualization import cells, pictures

CHANNELS = 25  # For each rate, as in the paper's figure.
_TILE, _GAP = 66, 2
CELL_SIZE = 5 * _TILE + 4 * _GAP
_BLANK = np.full((1, 1, 3), 255, np.uint8)


class Features:
    """Feature maps of one photograph: a row a run; columns image and each dilation rate.

    The maps are those of `rate_maps`, after normalisation and ReLU. A cell holds 25 channels of
    its rate, as in the paper, row by row, the same ones at each rate of a run: those whose mean
    over the photograph, summed over the rates, is largest, the largest first. Each is scaled to
    its own maximum and coloured by `cells.heat`: black is 0, white the maximum. A cell is white
    where a run has no such rate. Runs without rates are left out and named in `notes`.

    Args:
        image: uint8 array (height, width, 3), RGB.

    Reference:
        Huang et al., "See More Than Once: Kernel-Sharing Atrous Convolution for Semantic
        Segmentation", 2019, Figure 5, which shows 25 maps a rate. Readings: it does not say which
        channels, nor at what scale.
    """

    name = "features"

    def __init__(self, image: np.ndarray):
        self.notes: list[str] = []
        self._image = image
        self._rows: list[tuple[str, dict[int, np.ndarray]]] = []

    def add(self, run: RunFolder, model: keras.Model) -> None:
        """Adds the row of a run, or a note that it has no rates."""
        maps = {rate: maps[0] for rate, maps in model.rate_maps(self._image[np.newaxis]).items()}
        if not maps:
            self.notes.append(f"features: {cells.name_of(run)} has no dilation rates, left out")
            return
        strengths = sum(one.mean(axis=(0, 1)) for one in maps.values())
        channels = np.argsort(-strengths, kind="stable")[:CHANNELS]
        tiles = {rate: mosaic(one[..., channels]) for rate, one in maps.items()}
        self._rows.append((cells.name_of(run), tiles))

    def picture(self) -> Image.Image:
        """The figure of the runs that were added.

        Raises:
            UserError: None of them has dilation rates.
        """
        if not self._rows:
            raise UserError("`--features`: none of the runs has a context module with rates")
        rates = sorted({rate for _, tiles in self._rows for rate in tiles})
        return pictures.contact_sheet(
            [
                [self._image, *(tiles.get(rate, _BLANK) for rate in rates)]
                for _, tiles in self._rows
            ],
            ("image", *(f"rate {rate}" for rate in rates)),
            row_titles=[name for name, _ in self._rows],
            cell_size=CELL_SIZE,
        )


def mosaic(maps: np.ndarray) -> np.ndarray:
    """Lays the channels of a map out in a square, row by row.

    Args:
        maps: Float array (rows, columns, channels), none below 0. Each channel is scaled to its
            own maximum; one that is 0 everywhere is black.

    Returns:
        uint8 array (height, width, 3): tiles whose longer side is 66 pixels, white between.
    """
    side = int(np.ceil(np.sqrt(maps.shape[-1])))
    tiles = [
        pictures.fitted(cells.heat(one / max(one.max(), np.finfo(one.dtype).tiny)), _TILE)
        for one in np.moveaxis(maps, -1, 0)
    ]
    height, width = tiles[0].shape[:2]
    result = np.full(
        (side * (height + _GAP) - _GAP, side * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for index, tile in enumerate(tiles):
        top, left = (index // side) * (height + _GAP), (index % side) * (width + _GAP)
        result[top : top + height, left : left + width] = tile
    return result
