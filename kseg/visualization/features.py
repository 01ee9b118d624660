"""Feature maps of each dilation rate of a context module, as in KSAC Fig. 5."""

import numpy as np
from PIL import Image

from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs.folder import RunFolder
from kseg.visualization.run_figures import heat
from kseg.visualization.sheets import contact_sheet, fitted

CHANNELS = 25  # Per rate, as in the figure of the paper.
_TILE, _GAP = 66, 2
CELL_SIZE = 5 * _TILE + 4 * _GAP
_BLANK = np.full((1, 1, 3), 255, np.uint8)


class Features:
    """Figure of the feature maps of one image: one row per run, one column per dilation rate.

    The first column is the image. Each other cell shows 25 channels of `Segmenter.rate_maps`. A
    run has the same channels in all its cells: those with the largest mean over the image, summed
    over the rates, in descending order. Each channel is scaled by its maximum and coloured by
    `run_figures.heat`, so that black is 0 and white is the maximum. The cell of a rate that a run
    does not have is white. Runs without dilation rates are left out and named in `notes`.

    Args:
        image: uint8 array (height, width, 3), RGB.

    Reference:
        Huang et al., "See More Than Once: Kernel-Sharing Atrous Convolution for Semantic
        Segmentation", 2019, Figure 5, which shows 25 maps per rate. The paper states neither which
        channels they are nor how they are scaled.
    """

    name = "features"

    def __init__(self, image: np.ndarray) -> None:
        self.notes: list[str] = []
        self._image = image
        self._rows: list[tuple[str, dict[int, np.ndarray]]] = []

    def add(self, name: str, run: RunFolder, model: Segmenter) -> None:
        """Adds the row of a run, or a note that the run has no dilation rates."""
        maps = {rate: maps[0] for rate, maps in model.rate_maps(self._image[np.newaxis]).items()}
        if not maps:
            self.notes.append(
                f"features: the run {name} is left out, since it has no dilation rates"
            )
            return
        strengths = sum(rate_map.mean(axis=(0, 1)) for rate_map in maps.values())
        channels = np.argsort(-strengths, kind="stable")[:CHANNELS]
        tiles = {rate: mosaic(rate_map[..., channels]) for rate, rate_map in maps.items()}
        self._rows.append((name, tiles))

    def picture(self) -> Image.Image:
        """Returns the figure of the runs added so far.

        Raises:
            UserError: If none of them has dilation rates.
        """
        if not self._rows:
            raise UserError(
                "`--features` needs at least one run whose context module has dilation rates. "
                "Received none."
            )
        rates = sorted({rate for _, tiles in self._rows for rate in tiles})
        return contact_sheet(
            [
                [self._image, *(tiles.get(rate, _BLANK) for rate in rates)]
                for _, tiles in self._rows
            ],
            ("image", *(f"rate {rate}" for rate in rates)),
            row_titles=[name for name, _ in self._rows],
            cell_size=CELL_SIZE,
        )


def mosaic(maps: np.ndarray) -> np.ndarray:
    """Arranges the channels of a feature map in a square, row by row.

    Args:
        maps: Float array (rows, columns, channels) without negative values. Each channel is scaled
            by its maximum; a channel that is 0 everywhere is black.

    Returns:
        uint8 array (height, width, 3): tiles with a longer side of 66 pixels, separated by white
        lines.
    """
    side = int(np.ceil(np.sqrt(maps.shape[-1])))
    tiles = [
        fitted(heat(channel / max(channel.max(), np.finfo(maps.dtype).tiny)), _TILE)
        for channel in np.moveaxis(maps, -1, 0)
    ]
    height, width = tiles[0].shape[:2]
    result = np.full(
        (side * (height + _GAP) - _GAP, side * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for index, tile in enumerate(tiles):
        top, left = (index // side) * (height + _GAP), (index % side) * (width + _GAP)
        result[top : top + height, left : left + width] = tile
    return result
