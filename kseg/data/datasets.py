"""What the ids of a label map mean: class names, colours, and the id that counts for nothing."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in the order of their ids.

    Args:
        names: one name a class; the position is the id in a label map.
        colours: one (red, green, blue) triple a class, each 0..255, for pictures and palettes.
        ignore_label: id of pixels that neither train nor count. Defaults to 255 (PASCAL VOC).

    Raises:
        ValueError: no or too many classes, names that are empty or repeat, colours that are not as
            many as names or not bytes, an `ignore_label` that is also a class.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore_label: int = 255

    def __post_init__(self) -> None:
        names = tuple(self.names)
        colours = tuple(tuple(int(value) for value in colour) for colour in self.colours)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "colours", colours)
        if not 1 <= len(names) <= 255:
            raise ValueError(f"`names` must hold 1 to 255 classes. Received: {len(names)}")
        for name in names:
            if not isinstance(name, str) or not name.strip() or not name.isprintable():
                raise ValueError(f"`names` must be printable and not empty. Received: {name!r}")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"`names` must differ from each other. Repeated: {repeated}")
        if len(colours) != len(names):
            raise ValueError(
                f"`colours` must be as many as `names` ({len(names)}). Received: {len(colours)}"
            )
        for colour in colours:
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError(f"`colours` must be triples of 0..255. Received: {colour}")
        if not len(names) <= self.ignore_label <= 255:
            raise ValueError(
                f"`ignore_label` must lie between the number of classes ({len(names)}) and 255. "
                f"Received: {self.ignore_label}"
            )

    @property
    def num_classes(self) -> int:
        return len(self.names)


def voc_palette(size: int = 256) -> tuple[tuple[int, int, int], ...]:
    """The colour map of the PASCAL VOC development kit: the bits of the id, dealt to the channels.

    The three lowest bits of an id are the highest bits of red, green and blue, the next three the
    second highest, and so on: neighbouring ids get colours far apart.

    Args:
        size: number of colours, 0 to 256.

    Returns:
        `size` (red, green, blue) triples; 0 is black, 255 the cream of VOC's ignored borders.
    """
    if not 0 <= size <= 256:
        raise ValueError(f"`size` must lie between 0 and 256. Received: {size}")
    palette = []
    for label in range(size):
        colour = [0, 0, 0]
        for bit in range(8):
            colour[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
        palette.append(tuple(colour))
    return tuple(palette)


VOC = LabelSet(
    names=(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
    colours=voc_palette(21),
)
