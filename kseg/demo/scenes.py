"""The data of the demo: aerial-looking scenes, drawn from a seed.

Every scene is a mosaic of fields crossed by roads and water, with houses and trees. The classes
share their colours on purpose (grey roofs and grey roads; green water, green trees and green
fields), so that they differ in shape, texture and context: fields have furrows, roads are long
bands with a centre line, houses have a ridge and a shadow, water is smooth with fine ripples,
trees are lit domes. Light, shade, clouds and camera noise vary from scene to scene.

Shapes are drawn from signed distances in pixels (negative inside). This gives soft edges in the
image and, where two classes mix in a pixel, the ignore label in the mask, as in VOC's masks.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.datasets import LabelSet
from kseg.visualization.image_files import save_palette_png, save_picture
from kseg.visualization.progress import progress_bar

FIELD, ROAD, HOUSE, WATER, TREE = range(5)

SCENES = LabelSet(
    names=("field", "road", "house", "water", "tree"),
    colours=((226, 206, 122), (120, 120, 128), (206, 72, 54), (66, 128, 202), (44, 118, 56)),
)

_LISTS = Path("ImageSets") / "Segmentation"

SIZE = 161  # Height and width in pixels.

# Colours of each class; a scene mixes two neighbours of a list. The lists overlap.
_FIELD_COLOURS = ((156, 156, 92), (122, 146, 78), (180, 160, 104), (146, 126, 90), (138, 142, 112))
_ROAD_COLOURS = (
    (126, 126, 130),
    (150, 148, 146),
    (164, 152, 132),
    (112, 114, 122),
    (142, 134, 122),
)
_ROOF_COLOURS = ((172, 90, 72), (124, 122, 126), (152, 124, 112), (116, 112, 112), (166, 100, 80))
_WATER_COLOURS = ((70, 108, 100), (72, 112, 136), (92, 116, 112), (76, 104, 128), (86, 124, 150))
_TREE_COLOURS = ((58, 98, 48), (82, 110, 58), (106, 108, 60), (64, 92, 62), (122, 100, 62))

_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def draw_scene(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene.

    Args:
        seed: Seed of the whole set.
        index: Number of the scene. A scene depends only on (seed, index).

    Returns:
        The image, uint8 (SIZE, SIZE, 3), and its labels, uint8 (SIZE, SIZE), with 255 on edges.
    """
    return _Canvas(np.random.default_rng((seed, index))).draw()


def write_scenes(folder: str | Path, *, train: int, val: int, seed: int = 0) -> None:
    """Writes scenes in the layout of the VOC devkit: JPEG photographs and palette masks.

    Args:
        folder: Where `JPEGImages`, `SegmentationClass` and `ImageSets/Segmentation` are made.
        train: Number of scenes to train on.
        val: Number of held-out scenes, which are drawn after those.
        seed: Seed of the set. Defaults to 0.
    """
    folder = Path(folder)
    lists = folder / _LISTS
    for part in (folder / "JPEGImages", folder / "SegmentationClass", lists):
        part.mkdir(parents=True, exist_ok=True)
    names = [f"scene_{index:04d}" for index in range(train + val)]
    for index, name in enumerate(progress_bar(names, desc="draw", unit="scene")):
        image, labels = draw_scene(seed, index)
        quality = 80 + index % 4 * 4  # cameras compress to different degrees
        save_picture(folder / "JPEGImages" / f"{name}.jpg", image, quality=quality)
        save_palette_png(folder / "SegmentationClass" / f"{name}.png", labels, SCENES.colours)
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in names[:train]))
    (lists / "val.txt").write_text("".join(f"{name}\n" for name in names[train:]))


def scene_names(folder: str | Path, split: str) -> list[str]:
    """Returns the names of the scenes of a split, `train` or `val`."""
    return (Path(folder) / _LISTS / f"{split}.txt").read_text().split()


class _Canvas:
    """A scene that is being drawn: float colours (SIZE, SIZE, 3), labels, and the sun."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.image = np.zeros((SIZE, SIZE, 3), np.float32)
        self.labels = np.full((SIZE, SIZE), FIELD, np.uint8)
        angle = rng.uniform(0, 2 * np.pi)
        self.sun = np.array((np.sin(angle), np.cos(angle)), np.float32)  # direction of shadows

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        self.fields()
        if self.rng.random() < 0.8:
            self.water()
        for _ in range(self.rng.integers(1, 3)):
            self.road()
        for _ in range(self.rng.integers(2, 6)):
            self.house()
        for _ in range(self.rng.integers(2, 5)):
            self.wood()
        return self.photograph(), self.labels

    def fields(self) -> None:
        """Draws parcels around random points, each with a colour and furrows."""
        count = self.rng.integers(3, 7)
        points = self.rng.uniform(-10, SIZE + 10, (count, 2)).astype(np.float32)
        squared = [(_ROWS - row) ** 2 + (_COLUMNS - column) ** 2 for row, column in points]
        parcels = np.argmin(squared, axis=0)
        colours = np.stack([self.colour(_FIELD_COLOURS) for _ in range(count)])
        angle, frequency, depth = self.rng.uniform(
            (0, 2 * np.pi / 9, 14), (np.pi, 2 * np.pi / 5, 24), (count, 3)
        ).T.astype(np.float32)
        along = _ROWS * np.sin(angle)[parcels] + _COLUMNS * np.cos(angle)[parcels]
        furrows = depth[parcels] * np.sin(frequency[parcels] * (along + 3 * self.smooth_noise(4)))
        self.image = colours[parcels] + furrows[..., None]
        self.image += 7 * self.smooth_noise(12)[..., None]

    def water(self) -> None:
        """Draws a lake or a river: a smooth surface with fine ripples and a darker rim."""
        if self.rng.random() < 0.5:
            centre = self.rng.uniform(0.15, 0.85, 2) * SIZE
            radius = self.rng.uniform(28, 46)
            distance = np.hypot(_ROWS - centre[0], _COLUMNS - centre[1]) - radius
            distance += 12 * self.smooth_noise(5)
        else:
            distance = self.band(self.rng.uniform(24, 36), bend=26)
        along = self.along(self.rng.uniform(0, np.pi))
        ripples = 2.5 * np.sin(2 * np.pi * along / 3.5 + 3 * self.smooth_noise(8))
        colour = self.colour(_WATER_COLOURS) + (ripples + 4 * self.smooth_noise(3))[..., None]
        rim = np.clip(1 + distance / 5, 0, 1)[..., None]
        self.paint(distance, colour - 16 * rim, WATER)

    def road(self) -> None:
        """Draws a long even band with pale edges and a dashed centre line."""
        width = self.rng.uniform(12, 18)
        distance = self.band(width, bend=10)
        colour = self.colour(_ROAD_COLOURS) + 3 * self.smooth_noise(40)[..., None]
        centre = np.clip(1.6 - np.abs(distance + width / 2), 0, 1)
        dashes = np.sin(2 * np.pi * (self.along(0.7) if width > 15 else _ROWS + _COLUMNS) / 16) > 0
        edges = np.clip(1.2 - np.abs(distance + 1.8), 0, 1)
        colour = colour + (55 * centre * dashes + 22 * edges)[..., None]
        self.paint(distance, colour, ROAD)

    def house(self) -> None:
        """Draws a rotated rectangle: two roof slopes in different light, a ridge and a shadow."""
        half = self.rng.uniform((9, 12), (13, 19))
        for _ in range(12):  # houses stand on fields
            row, column = self.rng.uniform(12, SIZE - 12, 2)
            reach = 15
            area = self.labels[
                max(0, int(row) - reach) : int(row) + reach,
                max(0, int(column) - reach) : int(column) + reach,
            ]
            if (area == FIELD).mean() > 0.85:
                break
        else:
            return
        angle = self.rng.uniform(0, np.pi)
        window = _window(row, column, np.hypot(*half) + 8)
        shadow, _ = _rectangle(row + 6 * self.sun[0], column + 6 * self.sun[1], half, angle, window)
        self.image[window] *= 1 - 0.45 * np.clip(0.5 - shadow, 0, 1)[..., None]
        distance, across = _rectangle(row, column, half, angle, window)
        lit = np.sign(np.cos(angle) * self.sun[0] - np.sin(angle) * self.sun[1])
        slopes = -lit * np.sign(across) * self.rng.uniform(16, 26)
        ridge = 26 * np.clip(1.4 - np.abs(across), 0, 1)
        tiles = 4 * np.sin(2 * np.pi * across / 4)
        colour = self.colour(_ROOF_COLOURS) + (slopes + ridge + tiles)[..., None]
        self.paint(distance, colour, HOUSE, window)

    def wood(self) -> None:
        """Draws a cluster of crowns: domes, bright towards the sun and dark away from it."""
        for _ in range(12):
            centre = self.rng.uniform(0, SIZE, 2)
            if self.labels[int(centre[0]), int(centre[1])] == FIELD:
                break
        else:
            return
        count, spread = self.rng.integers(8, 22), self.rng.uniform(9, 17)
        crowns = centre + self.rng.normal(0, spread, (count, 2))
        radii = self.rng.uniform(5, 9, count)
        base = self.colour(_TREE_COLOURS)
        occupied = np.isin(self.labels, (ROAD, HOUSE, WATER))
        for (row, column), radius in zip(crowns, radii, strict=True):
            inside = 0 <= row < SIZE and 0 <= column < SIZE
            if inside and occupied[int(row), int(column)]:
                continue
            window = _window(row, column, radius + 2)
            down, right = _ROWS[window] - row, _COLUMNS[window] - column
            if down.size == 0:
                continue
            distance = np.hypot(down, right) - radius
            towards = (down * self.sun[0] + right * self.sun[1]) / radius
            leaves = self.rng.normal(0, 9, distance.shape)
            light = -34 * towards + leaves - 14 * np.clip(1 + distance / 3, 0, 1)
            colour = base + self.rng.normal(0, 7) + light[..., None]
            self.paint(distance, colour, TREE, window)

    def photograph(self) -> np.ndarray:
        """Returns the image under uneven light and clouds, with camera noise."""
        rng = self.rng
        slope = self.along(rng.uniform(0, 2 * np.pi)) / SIZE - 0.5
        gain = rng.uniform(0.82, 1.18) * (1 + rng.uniform(0, 0.3) * slope)
        clouds = np.clip(1.5 * self.smooth_noise(3) - 0.4, 0, 1) * rng.uniform(0, 0.45)
        tint = rng.uniform(0.94, 1.06, 3)
        image = self.image * (gain * (1 - clouds))[..., None] * tint
        image += rng.normal(0, rng.uniform(3, 7), image.shape)
        return np.clip(np.round(image), 0, 255).astype(np.uint8)

    def paint(
        self,
        distance: np.ndarray,
        colour: np.ndarray,
        label: int,
        window: tuple[slice, slice] = np.s_[:, :],
    ) -> None:
        """Draws a shape over the scene: soft edges in the image, ignored edges in the mask."""
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        self.image[window] = cover * colour + (1 - cover) * self.image[window]
        below = self.labels[window]
        edge = (np.abs(distance) < 0.8) & (below != label)
        self.labels[window] = np.where(edge, 255, np.where(distance < 0, label, below))

    def colour(self, colours: tuple[tuple[int, int, int], ...]) -> np.ndarray:
        """Returns a random mix of two neighbours in a list of colours, with some noise."""
        first = self.rng.integers(len(colours) - 1)
        weight = self.rng.random()
        mix = weight * np.array(colours[first]) + (1 - weight) * np.array(colours[first + 1])
        return (mix + self.rng.normal(0, 8) + self.rng.normal(0, 3, 3)).astype(np.float32)

    def along(self, angle: float) -> np.ndarray:
        """Returns the position of every pixel along a direction."""
        return _ROWS * np.float32(np.sin(angle)) + _COLUMNS * np.float32(np.cos(angle))

    def band(self, width: float, bend: float) -> np.ndarray:
        """Returns the signed distance to a bent band that crosses the scene."""
        angle = self.rng.uniform(0, 2 * np.pi)
        middle = SIZE / 2 * (np.sin(angle) + np.cos(angle)) + self.rng.uniform(-45, 45)
        along = self.along(angle + np.pi / 2)
        waves = bend * np.sin(along / self.rng.uniform(35, 60) + self.rng.uniform(0, 6.3))
        slope = bend / 47  # keeps the width where the band is oblique
        return (np.abs(self.along(angle) - middle - waves) - width / 2) / (1 + slope / 6)

    def smooth_noise(self, cells: int) -> np.ndarray:
        """Returns smooth noise with about `cells` bumps along a side, standard deviation near 1."""
        grid = self.rng.normal(0, 1.4, (cells + 1, cells + 1)).astype(np.float32)
        picture = Image.fromarray(grid).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        return np.asarray(picture)


def _rectangle(row, column, half, angle, window) -> tuple[np.ndarray, np.ndarray]:
    """The signed distance to a rotated rectangle, and the distance from its long axis."""
    down, right = _ROWS[window] - row, _COLUMNS[window] - column
    across = down * np.cos(angle) - right * np.sin(angle)
    along = down * np.sin(angle) + right * np.cos(angle)
    return np.maximum(np.abs(across) - half[0], np.abs(along) - half[1]), across


def _window(row, column, reach) -> tuple[slice, slice]:
    """The square around a pixel, cut to the scene."""
    top, left = int(row - reach), int(column - reach)
    size = int(2 * reach) + 2
    return (
        slice(max(0, top), max(0, min(SIZE, top + size))),
        slice(max(0, left), max(0, min(SIZE, left + size))),
    )
