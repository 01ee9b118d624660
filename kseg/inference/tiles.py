"""Images of any size as overlapping tiles, whose scores are blended so that no seam is visible.

A tile reaches `overlap` pixels into each neighbour, so that neighbours share twice that. The outer
quarters of the shared pixels are dropped, since a network is worst near the border of its input.
Over the `overlap` pixels between them the weight of one tile falls linearly from 1 to 0 while that
of the other rises. A network whose scores depend on at most `overlap / 2` pixels in each direction
therefore gives the same scores as for the whole image. For a network that sees further, or that
sees the mean of the image, the context ends at the border of the tile: its scores differ from those
for the whole image, but change smoothly from tile to tile.

Tiles begin at multiples of the network's stride, so that their features lie on the same grid as
those of the whole image.
"""

import dataclasses
import itertools
import numbers
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kseg.errors import UserError
from kseg.models import Segmenter

DEFAULT_TILE = 1024  # With MobileNetV2, KSAC, decoder and 21 classes a process takes 1.3 GB.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut into tiles.

    Attributes:
        tile: Height and width of a tile in pixels, multiples of the stride.
        overlap: Number of pixels by which a tile reaches into each neighbour: a multiple of the
            stride, at most a quarter of the tile. With 0 tiles do not overlap and seams are
            visible.
        stride: The `stride` of the network, by multiples of which tiles are moved.

    Raises:
        UserError: A value breaks its rule; the message names the flag, the rule and the value.
    """

    tile: tuple[int, int]
    overlap: int
    stride: int

    def __post_init__(self):
        if len(self.tile) != 2 or not all(
            isinstance(side, numbers.Integral) and side >= 1 and side % self.stride == 0
            for side in self.tile
        ):
            raise UserError(
                "`--tile` must be height,width, or one number for both, integers in multiples of "
                f"the network's stride ({self.stride}). Received: {','.join(map(str, self.tile))}"
            )
        most = min(self.tile) // 4
        if (
            not isinstance(self.overlap, numbers.Integral)
            or not 0 <= self.overlap <= most
            or self.overlap % self.stride
        ):
            raise UserError(
                f"`--overlap` must be a multiple of the network's stride ({self.stride}), at most "
                f"a quarter of the tile ({most}). Received: {self.overlap}"
            )

    @classmethod
    def of(
        cls, model: Segmenter, tile: tuple[int, ...] = (), overlap: int | None = None
    ) -> "Tiling":
        """Returns the tiling for a network from the values of `--tile` and `--overlap`.

        Args:
            model: The network.
            tile: Height and width, or one number for both. Empty: 1024.
            overlap: The overlap. None: an eighth of the shorter side of the tile, rounded down to a
                multiple of the stride, and at least the stride.

        Raises:
            UserError: As above, or no overlap is given and the tile is too small for one.
        """
        stride = model.stride
        tile = tuple(tile) or (DEFAULT_TILE,)
        tile = tile * 2 if len(tile) == 1 else tile
        if overlap is not None:
            return cls(tile=tile, overlap=overlap, stride=stride)
        without_overlap = cls(tile=tile, overlap=0, stride=stride)
        room = min(tile) // 4
        if room < stride:
            raise UserError(
                f"`--tile` must be at least {4 * stride}, four times the network's stride, so that "
                "tiles can overlap; with `--overlap=0` they need not. "
                f"Received: {','.join(map(str, tile))}"
            )
        overlap = min(max(min(tile) // 8, stride), room) // stride * stride
        return dataclasses.replace(without_overlap, overlap=overlap)

    def fits(self, height: int, width: int) -> bool:
        """Returns whether an image is no larger than one tile."""
        return height <= self.tile[0] and width <= self.tile[1]

    def count(self, height: int, width: int) -> int:
        """Returns the number of tiles of an image."""
        return len(self.spans(0, height)) * len(self.spans(1, width))

    def spans(self, axis: int, length: int) -> list["Span"]:
        """Returns the positions of the tiles along one axis of an image, in order."""
        tile, overlap = self.tile[axis], self.overlap
        # The last tile ends at the end of the image or, to stay on the grid, less than a stride
        # after it.
        last = max(-(-(length - tile) // self.stride) * self.stride, 0)
        firsts = [*range(0, last, tile - 2 * overlap), last]
        middles = [(before + tile + after) // 2 for before, after in itertools.pairwise(firsts)]
        begins = [0, *(middle - overlap // 2 for middle in middles)]
        ends = [*begins[1:], length]
        spans = []
        for index, (first, begin, end) in enumerate(zip(firsts, begins, ends, strict=True)):
            rises = overlap if index else 0
            falls = overlap if end < length else 0
            spans.append(
                Span(
                    seen=slice(first, min(first + tile, length)),
                    used=slice(begin - first, end + falls - first),
                    done=slice(begin, end),
                    rises=rises,
                    falls=falls,
                )
            )
        return spans


@dataclasses.dataclass(frozen=True)
class Span:
    """The position of one tile along one axis.

    Attributes:
        seen: The pixels of the image that the network sees.
        used: The pixels of the tile whose scores are used.
        done: The pixels of the image that are complete once this tile and those before it are
            added. They begin where `used` begins and end where the weights begin to fall.
        rises: Number of pixels at the beginning of `used` that are shared with the tile before.
        falls: Number of pixels at the end of `used` that are shared with the tile after.
    """

    seen: slice
    used: slice
    done: slice
    rises: int
    falls: int

    @property
    def weights(self) -> np.ndarray:
        """The float32 weight of each pixel of `used`; weights of neighbours sum to 1."""
        weights = np.ones(self.used.stop - self.used.start, np.float32)
        if self.rises:
            weights[: self.rises] = _rising(self.rises)
        if self.falls:
            weights[-self.falls :] = 1 - _rising(self.falls)
        return weights


def _rising(pixels: int) -> np.ndarray:
    return (np.arange(pixels, dtype=np.float32) + 0.5) / pixels


def blended(
    scores_of: Callable[[np.ndarray], np.ndarray], image: Any, tiling: Tiling
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Computes the scores of an image of any size, part by part.

    Args:
        scores_of: Function from a tile, uint8 (height, width, 3), to its float32 scores (height,
            width, classes). Tiles are smaller than `tiling.tile` if the image is.
        image: Has a `shape` and gives uint8 (height, width, 3) for `image[rows, columns]`: an
            array, or an image that is read by window.
        tiling: How the image is cut into tiles.

    Yields:
        Rows, columns and scores of a part, one for each tile, row by row. The parts cover the image
        and do not overlap. At most two tiles are held in memory; the `overlap` rows of scores that
        a row of tiles shares with the next are kept in a temporary file.
    """
    height, width = image.shape[:2]
    columns = tiling.spans(1, width)
    with tempfile.TemporaryFile() as strips:
        for row in tiling.spans(0, height):
            strips.seek(0)
            beside = None
            for column in columns:
                weights = row.weights[:, np.newaxis, np.newaxis] * column.weights[:, np.newaxis]
                scores = scores_of(image[row.seen, column.seen])[row.used, column.used] * weights
                if column.rises:
                    scores[:, : column.rises] += beside
                complete = scores.shape[1] - column.falls
                beside = scores[:, complete:].copy()
                scores = scores[:, :complete]
                if row.rises:
                    scores[: row.rises] += _read(strips, (row.rises, *scores.shape[1:]))
                if row.falls:
                    _write(strips, scores[-row.falls :], over=row.rises)
                yield row.done, column.done, scores[: len(scores) - row.falls]


def _read(file, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(file.read(4 * int(np.prod(shape))), np.float32).reshape(shape)


def _write(file, strip: np.ndarray, over: int) -> None:
    """Writes a strip, over the strip that was just read if there was one."""
    if over:
        file.seek(-strip.nbytes, 1)
    try:
        file.write(strip.tobytes())
        file.flush()
    except OSError as error:  # It does not name the file, which has no name.
        raise UserError(
            f"Temporary files cannot be written in {tempfile.gettempdir()}: {error.strerror}. The "
            "environment variable TMPDIR can name another folder"
        ) from error
