"""The rules by which images of COCO are kept, and what each of them has left out."""

import dataclasses
from collections.abc import Mapping

from tfrecords_tools import coco_masks
from tfrecords_tools.coco_json import AnnotatedImage
from tfrecords_tools.coco_masks import Label
from tfrecords_tools.coco_values import Identifier


@dataclasses.dataclass
class Rules:
    """The rules for the images of one split, and counts of the images that they leave out.

    Args:
        split: Name of the split.
        min_image_area: An image must have more pixels than this in objects. 0 keeps every image.
        min_object_area: Pixels that an object must have; smaller ones become background.

    Attributes:
        left_out: Number of images left out, for each rule: images without objects of the kept
            categories; those that have enough pixels in objects, but not without the objects below
            `--min_object_area`; and all others below `--min_image_area`. Images with problems are
            not counted.
        without_pixels: Number of objects that draw no pixel, such as lines and what lies outside
            of the image, by image. Only images that are kept are counted.
        largest: Pixels and image of the largest object so far.
    """

    split: str
    min_image_area: int
    min_object_area: int
    left_out: dict[str, int] = dataclasses.field(init=False)
    without_pixels: dict[str, int] = dataclasses.field(init=False, default_factory=dict)
    largest: tuple[int, str] = (0, "")

    def __post_init__(self) -> None:
        self._no_object = "lack of objects of the kept categories"
        self._object_area = f"--min_object_area={self.min_object_area}"
        self._image_area = f"--min_image_area={self.min_image_area}"
        self.left_out = dict.fromkeys((self._no_object, self._object_area, self._image_area), 0)

    def label(self, image: AnnotatedImage, class_ids: Mapping[Identifier, int]) -> Label | None:
        """Draws the objects of an image; returns None, and counts it, if it is left out.

        Objects of the background, class 0, draw nothing and do not count.
        """
        size = image.height, image.width
        drawn = []
        for category, shape in image.objects:
            if not class_ids[category]:
                continue  # The background is what no object covers.
            counts, area = coco_masks.draw(shape, *size)
            self.largest = max(self.largest, (area, image.file_name))
            drawn.append((class_ids[category], counts, area))
        kept = (obj[:2] for obj in drawn if obj[2] >= max(1, self.min_object_area))
        label = Label(*size, tuple(kept))
        if not self.min_image_area or coco_masks.union_area(label) > self.min_image_area:
            if empty := sum(not area for _, _, area in drawn):
                self.without_pixels[image.file_name] = empty
            return label
        whole = Label(*size, tuple(obj[:2] for obj in drawn))
        rule = self._image_area
        if not drawn:
            rule = self._no_object
        elif coco_masks.union_area(whole) > self.min_image_area:
            rule = self._object_area
        self.left_out[rule] += 1
        return None

    def reason(self) -> str:
        """Returns which rules have left out images, with the largest object, or an empty text."""
        counts = counts_by_rule(self.left_out)
        if not counts:
            return ""
        area, name = self.largest
        largest = f"The largest object has {area} pixels ({name})" if area else "There is no object"
        return (
            f"split {self.split!r}: the rules leave out every image: {counts}. "
            f"{largest}. --min_image_area=0 keeps every image"
        )


def counts_by_rule(left_out: Mapping[str, int]) -> str:
    """Returns `Rules.left_out` in words, without the rules that have left out nothing."""
    return ", ".join(f"{count} by {rule}" for rule, count in left_out.items() if count)
