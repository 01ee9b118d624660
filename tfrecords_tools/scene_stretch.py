"""Measures the values of scenes, window by window, to find the limits of a stretch to 8 bits."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kseg.data import scenes
from kseg.data.scene_bands import DTYPES, SceneBands
from kseg.errors import UserError

PIXELS_PER_WINDOW = 1 << 22
# A band that is marked as alpha is one if nearly all of its values are its lowest or highest.
_ALPHA_FRACTION = 0.99


def check_types(paths: Mapping[str, Path], bands: Sequence[int], bad: dict[str, str]) -> str | None:
    """Returns the common type of the bands in all scenes; None if no scene can be used.

    Args:
        paths: Name -> file of each scene.
        bands: Numbers of the bands.
        bad: Receives a message for each scene that cannot be read, lacks a band, has a type that
            is not supported, or another type than the scenes before it.
    """
    common = None
    for name, path in paths.items():
        try:
            with scenes.open_tiff(path) as source:
                count, dtypes = source.count, source.dtypes
        except UserError as error:
            bad[name] = f"{path}: {error}"
            continue
        received = f"Received: {count} bands of {', '.join(sorted(set(dtypes)))}"
        found = {dtypes[band - 1] for band in bands if band <= count}
        if count < max(bands):
            bad[name] = f"{path}: has no band {max(bands)}, which `--bands` names. {received}"
        elif len(found) > 1 or not found <= set(DTYPES):
            bad[name] = (
                f"{path}: `--bands` must be of one type among {', '.join(DTYPES)}; gdal_translate "
                f"-ot UInt16 -scale MIN MAX 0 65535 converts others. {received}"
            )
        elif common and found != {common}:
            bad[name] = f"{path}: scenes before it have values of {common}. {received}"
        else:
            (common,) = found
    return common


def measure(
    paths: Mapping[str, Path],
    bands: Sequence[int],
    dtype: str,
    bad: dict[str, str],
    *,
    stretch: tuple[float, float] | None = None,
    limits: tuple[tuple[float, float], ...] | None = None,
) -> SceneBands | None:
    """Returns how the bands become 8 bits; None if no scene can be used.

    Args:
        paths: Name -> file of each scene.
        bands: Numbers of the bands.
        dtype: Type of their values.
        bad: Receives a message for each scene that is damaged. Its values do not count.
        stretch: Percentiles of the values of all scenes, of each band by itself, that become 0 and
            255. Pixels without data do not count. Defaults to None.
        limits: Values that become 0 and 255, in place of percentiles. Defaults to None.

    Raises:
        UserError: There is neither a stretch nor limits for 16 bits, or both; or a band has only
            one value.
    """
    bands = tuple(bands)
    if stretch and limits:
        raise UserError("`--stretch` and `--limits` cannot be given together")
    if not stretch and not limits:
        if dtype != "uint8":
            raise UserError(
                f"`--stretch` must be given for scenes of {dtype}, as in --stretch=2,98, or "
                "`--limits`, so that their values become 8 bits"
            )
        limits = ((0, 255),) * 3
    alpha = _alpha(paths, bands, bad)
    whole = SceneBands(bands=bands, limits=limits or ((0, 1),) * 3, dtype=dtype, alpha=alpha)
    if limits:
        return whole if paths.keys() - bad.keys() else None
    info = np.iinfo(dtype)
    counts = np.zeros((3, info.max - info.min + 1), np.int64)
    for name, path in paths.items():
        if name not in bad:
            with _recording(name, path, bad):
                counts += _counts(path, whole)
    if not paths.keys() - bad.keys():
        return None
    if not counts[0].any():
        raise UserError("No scene has a pixel with data")
    found = tuple(
        tuple(info.min + percentile(band_counts, q) for q in stretch) for band_counts in counts
    )
    for band, (low, high) in zip(bands, found, strict=True):
        if low == high:
            raise UserError(
                f"`--stretch` needs a band with several values. Band {band} has {low:g} at both "
                "percentiles; give other percentiles, or `--limits`"
            )
    return SceneBands(bands=bands, limits=found, dtype=dtype, alpha=alpha)


def percentile(counts: np.ndarray, q: float) -> float:
    """Returns a percentile of values of which `counts[value]` occur, as `numpy.percentile` does."""
    cumulative = np.cumsum(counts)
    position = q / 100 * (int(cumulative[-1]) - 1)
    below = int(np.floor(position))
    low, high = np.searchsorted(cumulative, (below, below + (position > below)), side="right")
    return float(low + (position - below) * (high - low))


def _counts(path: Path, bands: SceneBands) -> np.ndarray:
    """Returns how often each value occurs in each band of a scene, int64 (3, values)."""
    info = np.iinfo(bands.dtype)
    counts = np.zeros((3, info.max - info.min + 1), np.int64)
    with scenes.open_scene(path, bands) as scene:
        for place in _with_progress(scene, f"measure values, {path.name}"):
            nodata = scene.is_nodata(place)
            for channel, values in enumerate(scene.values(place)):
                seen = values[~nodata].astype(np.int32) - info.min
                counts[channel] += np.bincount(seen, minlength=counts.shape[1])
    return counts


def _alpha(paths: Mapping[str, Path], bands: tuple[int, ...], bad: dict[str, str]) -> bool:
    """Returns whether the bands that are marked as alpha are alpha."""
    counts = np.zeros(2, np.int64)
    for name, path in paths.items():
        with _recording(name, path, bad):
            with scenes.open_tiff(path) as source:
                found = set(scenes.alpha_bands(source)) - set(bands)
                dtypes = source.dtypes
            if found:
                band = min(found)
                counts += _alpha_counts(path, band, dtypes[band - 1])
    if not counts[1] or counts[0] >= _ALPHA_FRACTION * counts[1]:
        return True
    print(
        f"note: band {band} is marked as alpha, but {100 - 100 * counts[0] / counts[1]:.0f} % of "
        "its values are neither the lowest nor the highest, so it is not treated as transparency"
    )
    return False


def _alpha_counts(path: Path, band: int, dtype: str) -> np.ndarray:
    """Returns how many values of a band are its lowest or highest, and how many there are."""
    counts = np.zeros(2, np.int64)
    alone = SceneBands(bands=(band,) * 3, limits=((0, 1),) * 3, dtype=dtype)
    with scenes.open_scene(path, alone) as scene:
        for place in _with_progress(scene, f"measure alpha, {path.name}"):
            values = scene.values(place)[0]
            ends = np.count_nonzero((values == 0) | (values == np.iinfo(dtype).max))
            counts += (ends, values.size)
    return counts


def _with_progress(scene: scenes.Scene, what: str) -> Iterable[scenes.Place]:
    """Returns the windows of a scene, with a progress bar."""
    return tqdm(list(windows(scene)), what, unit="window", disable=None)


@contextlib.contextmanager
def _recording(name: str, path: Path, bad: dict[str, str]) -> Iterator[None]:
    """Records a scene as bad if it cannot be read."""
    try:
        yield
    except UserError as error:
        bad[name] = f"{path}: {error}"


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Adds the file to the message of a `UserError`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def windows(scene: scenes.Scene) -> Iterator[scenes.Place]:
    """Yields windows that cover a scene: blocks of rows if it is stored in strips, else squares."""
    height, width = scene.shape[:2]
    in_strips = scene.source.block_shapes[0][1] == width
    columns = width if in_strips else min(width, 2048)
    rows = max(1, min(height, PIXELS_PER_WINDOW // columns))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))
