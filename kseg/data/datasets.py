"""Class names, colours and ignore label of the published data sets.

Each data set has a `LabelSet`. Where the pixel values of its masks are not class ids, it also has
`<SET>_RAW_IDS`, which maps every value that may occur to its class id.
"""

import dataclasses

# The label of ignored pixels in every data set of this module.
IGNORE_LABEL = 255


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in the order of their ids.

    Args:
        names: Name of each class. The position is the class id in a label map.
        colours: (red, green, blue) of each class, 0..255, for pictures and palettes.
        ignore_label: Label of the pixels that are left out of training and evaluation. Defaults to
            255 (PASCAL VOC).

    Raises:
        ValueError: If there are no or more than 255 classes, a name is empty or occurs twice, the
            number of colours is wrong, a colour is invalid, or `ignore_label` is a class id.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore_label: int = IGNORE_LABEL

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
            raise ValueError(f"`names` must be unique. Received more than once: {repeated}")
        if len(colours) != len(names):
            raise ValueError(
                f"`colours` must have one colour for each of the {len(names)} `names`. "
                f"Received: {len(colours)}"
            )
        for colour in colours:
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError(
                    f"`colours` must be triples of values in 0..255. Received: {colour}"
                )
        if not len(names) <= self.ignore_label <= 255:
            raise ValueError(
                f"`ignore_label` must lie between the number of classes ({len(names)}) and 255. "
                f"Received: {self.ignore_label}"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.names)


def voc_palette(size: int = 256) -> tuple[tuple[int, int, int], ...]:
    """Returns the colour map of the PASCAL VOC development kit.

    The three lowest bits of an id are the highest bits of red, green and blue, the next three bits
    are the second highest, and so on, so that the colours of neighbouring ids differ clearly.

    Args:
        size: Number of colours, 0 to 256.

    Returns:
        `size` triples (red, green, blue). The colour of id 0 is black, that of id 255 the cream of
        the ignored borders in VOC's masks.

    Raises:
        ValueError: If `size` is out of range.
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


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(","))


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

# COCO's 80 categories by the ids in its JSON files, which skip ten numbers between 1 and 90.
COCO_CATEGORIES = dict(
    zip(
        [raw for raw in range(1, 91) if raw not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)],
        _names(
            """
            person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
            fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow,
            elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee,
            skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
            surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana,
            apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair,
            couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
            cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
            scissors, teddy bear, hair drier, toothbrush
            """
        ),
        strict=True,
    )
)
# The classes of COCO: background, then all categories in the order of their ids. The colours are
# those of VOC's palette.
COCO = LabelSet(("background", *COCO_CATEGORIES.values()), voc_palette(81))
# The id of the COCO category for each class of VOC, in VOC's order, as in torchvision's reference
# training. 0 is the background, which is no category of COCO.
COCO_IDS_OF_VOC = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)

# ADE20K's scene parsing benchmark, with the first name in each line of its objectInfo150.txt. The
# colours are those of VOC's palette from 1 on, not the benchmark's own.
ADE20K = LabelSet(
    names=_names(
        """
        wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
        person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
        shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
        bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
        sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case,
        pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table,
        toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer,
        swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier,
        awning, streetlight, booth, television, airplane, dirt track, apparel, pole, land,
        bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
        conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall,
        tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot,
        animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase,
        traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower,
        radiator, glass, clock, flag
        """
    ),
    colours=voc_palette(151)[1:],
)
# In its masks 0 is "other", and k is class k - 1.
ADE20K_RAW_IDS = {0: IGNORE_LABEL, **{raw: raw - 1 for raw in range(1, 151)}}

# Cityscapes' 19 evaluated classes in the order of their train ids, with Cityscapes' colours.
_CITYSCAPES = {
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
CITYSCAPES = LabelSet(*zip(*_CITYSCAPES.values(), strict=True))
# Its labelIds masks have values from 0 to 33. Classes that are not evaluated are ignored.
CITYSCAPES_RAW_IDS = {
    **dict.fromkeys(range(34), IGNORE_LABEL),
    **{raw: train_id for train_id, raw in enumerate(_CITYSCAPES)},
}

# CamVid with the 11 classes of the SegNet experiments and CamVid's colours.
CAMVID = LabelSet(
    names=_names(
        "sky, building, pole, road, pavement, tree, sign-symbol, fence, car, pedestrian, bicyclist"
    ),
    colours=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
# In its masks 11 is void.
CAMVID_RAW_IDS = {**{raw: raw for raw in range(11)}, 11: IGNORE_LABEL}

# DeepGlobe's road extraction, whose masks are white on roads.
ROADS = LabelSet(("background", "road"), ((0, 0, 0), (255, 255, 255)))

# The trimaps of Oxford-IIIT Pet, with colours of VOC's palette. Value 3, "not classified", is the
# outline.
PETS = LabelSet(("background", "pet"), voc_palette(2))
PETS_RAW_IDS = {1: 1, 2: 0, 3: IGNORE_LABEL}

# The label sets by the names used in flags.
LABEL_SETS = {
    "voc": VOC,
    "coco": COCO,
    "ade20k": ADE20K,
    "cityscapes": CITYSCAPES,
    "camvid": CAMVID,
    "roads": ROADS,
    "pets": PETS,
}
