"""Images of any size by overlapping tiles whose scores are blended, so that no seam shows.

A tile reaches `overlap` pixels beyond its own part of the image on every side, so that neighbours
share twice that. Of what they share the outer quarters are dropped, since a network is worst where
it sees the edge of a tile; over the `overlap` pixels between them the weight of one tile falls
linearly from 1 to 0 while that of the other rises. A network whose scores depend on at most
`overlap / 2` pixels in every direction thus gives what it gives for the whole image. For one that
sees further, or the mean of the image, the context ends with the tile: scores differ from those of
the whole image, but pass smoothly from tile to tile.

Tiles begin at multiples of the network's stride, so that their features lie on the grid that those
of the whole image lie on.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from kseg.errors import UserError
from kseg.inference.scorer import grid_stride

DEFAULT_TILE = 1024  # A process of 1.3 GB with MobileNetV2, KSAC, decoder and 21 classes.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut into tiles.

    Attributes:
        tile: Height and width of a tile in pixels, multiples of the stride.
        overlap: Pixels by which a tile reaches into the part of each neighbour: a multiple of the
            stride, at most a quarter of the tile. 0: tiles lie edge to edge, and seams show.
        stride: Pixels by which tiles may be moved, see `kseg.inference.scorer.grid_stride`.

    Raises:
        UserError: A value breaks its rule; the message names the flag, the rule and the value.
    """

    tile: tuple[int, int]
    overlap: int
    stride: int

    def __post_init__(self):
        if len(self.tile) != 2 or any(side < 1 or side % self.stride for side in self.tile):
            raise UserError(
                "`--tile` must be height,width, one number for both, in multiples of the "
                f"network's stride ({self.stride}). Received: {','.join(map(str, self.tile))}"
            )
        most = min(self.tile) // 4
        if not 0 <= self.overlap <= most or self.overlap % self.stride:
            raise UserError(
                f"`--overlap` must be a multiple of the network's stride ({self.stride}), at most "
                f"a quarter of the tile ({most}). Received: {self.overlap}"
            )

    @classmethod
    def of(cls, model, tile: tuple[int, ...] = (), overlap: int | None = None) -> "Tiling":
        """The tiling for a network, from what the flags `--tile` and `--overlap` say.

        Args:
            model: A network of `kseg.models`.
            tile: Height and width, or one number for both. Empty: 1024.
            overlap: None: an eighth of the tile's shorter side, down to a multiple of the stride,
                and at least the stride.

        Raises:
            UserError: As above, or no overlap is given and a tile has no room for any.
        """
        stride = grid_stride(model)
        tile = tuple(tile) or (DEFAULT_TILE,)
        tile = tile * 2 if len(tile) == 1 else tile
        if overlap is not None:
            return cls(tile=tile, overlap=overlap, stride=stride)
        room = min(tile) // 4
        overlap = min(max(min(tile) // 8, stride), room) // stride * stride
        tiling = cls(tile=tile, overlap=overlap, stride=stride)
        if room < stride:
            raise UserError(
                f"`--tile` must be at least {4 * stride}, four times the network's stride, or "
                "tiles cannot overlap and seams show (`--overlap=0` takes them so). "
                f"Received: {','.join(map(str, tile))}"
            )
        return tiling

    def fits(self, height: int, width: int) -> bool:
        """Whether an image is no larger than one tile."""
        return height <= self.tile[0] and width <= self.tile[1]

    def count(self, height: int, width: int) -> int:
        """Number of tiles of an image."""
        return len(self.spans(0, height)) * len(self.spans(1, width))

    def spans(self, axis: int, length: int) -> list["Span"]:
        """Where the tiles lie along one axis of an image, in order."""
        tile, overlap = self.tile[axis], self.overlap
        # The last ends at the image's end or, to stay on the grid, less than a stride after it.
        last = max(-(-(length - tile) // self.stride) * self.stride, 0)
        firsts = [*range(0, last, tile - 2 * overlap), last]
        middles = [(one + tile + other) // 2 for one, other in itertools.pairwise(firsts)]
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
    """One tile along one axis.

    Attributes:
        seen: What the network sees, in pixels of the image.
        used: What its scores count for, in pixels of the tile.
        done: What is complete once this tile and those before it are added, in pixels of the
            image. It begins where `used` does and ends where the weights begin to fall.
        rises: Pixels at the beginning of `used` that are shared with the tile before.
        falls: Pixels at its end that are shared with the tile after.
    """

    seen: slice
    used: slice
    done: slice
    rises: int
    falls: int

    @property
    def weights(self) -> np.ndarray:
        """float32 weight of each pixel of `used`; with those of the neighbours they sum to 1."""
        weights = np.ones(self.used.stop - self.used.start, np.float32)
        if self.rises:
            weights[: self.rises] = _rising(self.rises)
        if self.falls:
            weights[-self.falls :] = 1 - _rising(self.falls)
        return weights


def _rising(pixels: int) -> np.ndarray:
    return (np.arange(pixels, dtype=np.float32) + 0.5) / pixels


def blended(
    look: Callable[[np.ndarray], np.ndarray], image, tiling: Tiling
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Scores of an image of any size, part by part.

    Args:
        look: Function of a tile, uint8 (height, width, 3), to its float32 scores (height, width,
            classes). Tiles are smaller than `tiling.tile` where the image is.
        image: Has a `shape` and gives uint8 (height, width, 3) for `image[rows, columns]`: an
            array, or an image that is read by window.
        tiling: How it is cut.

    Yields:
        Rows, columns and scores of a part, one for each tile, row by row; the parts cover the image
        without sharing a pixel. No more than two tiles are held in memory. What a row of tiles
        leaves for the next, `overlap` rows of scores, lies in a temporary file.
    """
    height, width = image.shape[:2]
    columns = tiling.spans(1, width)
    with tempfile.TemporaryFile() as strips:
        for row in tiling.spans(0, height):
            strips.seek(0)
            beside = None
            for column in columns:
                weights = row.weights[:, np.newaxis, np.newaxis] * column.weights[:, np.newaxis]
                scores = look(image[row.seen, column.seen])[row.used, column.used] * weights
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
    """Writes a strip, in the place of the one that was just read where there was one."""
    if over:
        file.seek(-strip.nbytes, 1)
    file.write(strip.tobytes())
