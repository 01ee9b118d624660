"""Traces the regions of a label map of any size as polygons, strip by strip.

rasterio traces each strip. A region that crosses a seam between strips is put together again from
the edges of its parts, without those on the seam that its parts have in common. Memory holds one
strip and the regions that cross the present seam: it grows with the largest regions, not with the
map.
"""

import array
from collections.abc import Callable, Iterator

import numpy as np

STRIP_PIXELS = 1 << 20

# Closed rings of (column, row) vertices, int32 (n, 2): the outer boundary, then the holes. They
# have no vertex twice, and the region is to the right of each edge where rows grow downwards.
Rings = list[np.ndarray]


def trace(
    read: Callable[[slice], np.ndarray],
    shape: tuple[int, int],
    ignore_label: int,
    *,
    strip_rows: int | None = None,
) -> Iterator[tuple[int, Rings]]:
    """Yields the label and the boundary of each region of equal labels.

    Pixels belong to one region if they are connected by their sides.

    Args:
        read: Reads rows of the label map, uint8 (rows, width).
        shape: Height and width of the label map.
        ignore_label: Label of pixels that are in no region.
        strip_rows: Rows that are traced at once. Defaults to None: about a million pixels.
    """
    height, width = shape
    strip_rows = strip_rows or max(16, STRIP_PIXELS // width)
    tracer = _Tracer(width, ignore_label)
    for top in range(0, height, strip_rows):
        rows = slice(top, min(top + strip_rows, height))
        yield from tracer.add(read(rows), rows, is_last=rows.stop == height)


class _Tracer:
    """The regions that cross the present seam, each as its label and parts of its edges.

    Edges are int32 (n, 4): column and row of the start, column and row of the end. The edges on the
    seam itself are not among them.
    """

    def __init__(self, width: int, ignore_label: int):
        self._width = width
        self._ignore_label = ignore_label
        self._regions: list[tuple[int, list[np.ndarray]]] = []
        # Index of the region above the seam at each column; -1 where there is none.
        self._above = np.full(width, -1, np.int64)

    def add(self, labels: np.ndarray, rows: slice, *, is_last: bool) -> Iterator[tuple[int, Rings]]:
        """Adds the strip below the seam; yields the regions that end in it."""
        from rasterio import features

        regions, above = self._regions, self._above
        under, bottom = np.full(self._width, -1, np.int64), np.full(self._width, -1, np.int64)
        labels = np.ascontiguousarray(labels)
        for geometry, value in features.shapes(
            labels, mask=labels != self._ignore_label, connectivity=4
        ):
            rings = [
                _turned(np.asarray(ring, np.int32) + np.int32((0, rows.start)), is_hole=bool(k))
                for k, ring in enumerate(geometry["coordinates"])
            ]
            first, last = rings[0][:, 1].min(), rings[0][:, 1].max()
            inside = (first > rows.start or first == 0) and (last < rows.stop or is_last)
            if inside and all(len(set(ring)) == len(ring) - 1 for ring in geometry["coordinates"]):
                yield int(value), rings
                continue
            edges = np.concatenate([np.concatenate([r[:-1], r[1:]], axis=1) for r in rings])
            on_seam = (edges[:, 1] == edges[:, 3]) & (
                ((edges[:, 1] == rows.start) & (rows.start > 0))
                | ((edges[:, 1] == rows.stop) & (not is_last))
            )
            if not on_seam.any():
                yield int(value), _assembled(edges)
                continue
            for start, row, end in edges[on_seam][:, :3].tolist():
                owners = under if row == rows.start else bottom
                owners[min(start, end) : max(start, end)] = len(regions)
            regions.append((int(value), [edges[~on_seam]]))
        if not regions:
            return
        values = np.array([value for value, _ in regions])
        joined = (above >= 0) & (under >= 0) & (values[above] == values[under])
        self._add_seam(above, joined, rows.start, downwards=False)
        self._add_seam(under, joined, rows.start, downwards=True)
        roots = _roots(len(regions), np.unique(np.stack([above, under])[:, joined], axis=1).T)
        merged: dict[int, tuple[int, list[np.ndarray]]] = {}
        for root, (value, parts) in zip(roots.tolist(), regions, strict=True):
            merged.setdefault(root, (value, []))[1].extend(parts)
        open_roots = np.unique(roots[bottom[bottom >= 0]])
        for root in merged.keys() - set(open_roots.tolist()):
            value, parts = merged[root]
            yield value, _assembled(np.concatenate(parts))
        self._regions = [merged[root] for root in open_roots.tolist()]
        self._above = np.where(bottom >= 0, np.searchsorted(open_roots, roots[bottom]), -1)

    def _add_seam(
        self, owners: np.ndarray, joined: np.ndarray, row: int, *, downwards: bool
    ) -> None:
        """Gives the regions on one side of a seam their edges where the other side differs."""
        columns = np.flatnonzero((owners >= 0) & ~joined)
        columns = columns[np.argsort(owners[columns], kind="stable")]
        found, firsts = np.unique(owners[columns], return_index=True)
        for region, mine in zip(found.tolist(), np.split(columns, firsts)[1:], strict=True):
            ends = np.stack([mine, np.full_like(mine, row), mine + 1, np.full_like(mine, row)], 1)
            if not downwards:
                ends = ends[:, [2, 3, 0, 1]]
            self._regions[region][1].append(ends.astype(np.int32))


def _turned(ring: np.ndarray, *, is_hole: bool) -> np.ndarray:
    """Returns a closed ring with the region to the right of its edges."""
    return ring[::-1] if (signed_area(ring) > 0) == is_hole else ring


def signed_area(ring: np.ndarray) -> float:
    """Returns the area of a closed ring, positive if it is an outer boundary."""
    x, y = ring.astype(np.float64).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _roots(count: int, pairs: np.ndarray) -> np.ndarray:
    """Returns the lowest member of the set of each number, where each pair is in one set."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for first, second in pairs.tolist():
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return np.array([root(number) for number in range(count)])


def _assembled(edges: np.ndarray) -> Rings:
    """Links the edges of a region to rings without repeated vertices, the outer boundary first.

    Two edges leave a corner at which the region touches itself. A walk that comes back to such a
    corner closes a ring there; whichever way it leaves the corner, the rings do not cross.
    """
    columns = int(edges[:, [0, 2]].max()) + 1
    starts, ends = (edges[:, k + 1].astype(np.int64) * columns + edges[:, k] for k in (0, 2))
    order = np.argsort(starts)
    starts, ends = starts[order], ends[order]
    # A vertex is the number of the first edge that leaves it.
    next_vertex = memoryview(np.searchsorted(starts, ends).astype(np.int32))
    vertex_of = memoryview(np.searchsorted(starts, starts).astype(np.int32))
    is_double = memoryview(np.append(starts[1:] == starts[:-1], False).astype(np.uint8))
    taken = bytearray(len(starts))
    rings: Rings = []
    for first in range(len(starts)):
        if taken[first]:
            continue
        begin = vertex = vertex_of[first]
        path = array.array("i")
        before: dict[int, int] = {}  # Number of edges before each such corner on the path.
        while True:
            if is_double[vertex]:
                before[vertex] = len(path)
            edge = vertex + taken[vertex]
            taken[edge] = 1
            path.append(edge)
            vertex = next_vertex[edge]
            closed = 0 if vertex == begin else before.get(vertex)
            if closed is None:
                continue
            ring = starts[np.array(path[closed:])]
            rings.append(_corners(np.stack([ring % columns, ring // columns], axis=1)))
            del path[closed:]
            # The corners are in the order of the path.
            while before and before[next(reversed(before))] >= closed:
                before.popitem()
            if not path and (not is_double[vertex] or taken[vertex + 1]):
                break
    rings.sort(key=signed_area, reverse=True)
    return rings


def _corners(ring: np.ndarray) -> np.ndarray:
    """Closes an open ring, without the vertices inside straight lines."""
    ring = ring.astype(np.int32)
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = (before[:, 0] == 0) != (after[:, 0] == 0)
    ring = ring[turns]
    return np.concatenate([ring, ring[:1]])
