"""Converts any folder of images and folder of masks, matched by name without ending.

    python -m tfrecords_tools.build_folder --images=photos --labels=masks --classes=classes.txt \\
        --output_dir=records --split=train

`photos/a.jpg` goes with `masks/a.png`. The classes file has one class a line, the first is id 0;
a line is a name, or a name and its colour as red, green, blue; `#` begins a line of comment:

    # id 0
    background 0 0 0
    road surface 255 255 255

A mask holds the ids themselves (palette PNG or 8-bit grey), 255 where a pixel counts for nothing.
With colours in the classes file it may also be RGB in just these colours; `--ignore_colour=r,g,b`
names the colour, if any, that counts for nothing.
"""

import functools
from pathlib import Path

from absl import flags

from kseg import program
from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import inputs, summary, writer

# Files that desktops leave in folders of pictures.
_LITTER = ("thumbs.db", "desktop.ini")


def read_classes(path: str | Path) -> tuple[LabelSet, bool]:
    """Reads a classes file.

    Args:
        path: text file, one class a line: `name` or `name red green blue`.

    Returns:
        The classes, and whether the file gives their colours (else they are VOC's palette).

    Raises:
        UserError: not a text file, no class, a name twice, colours on some lines only, a colour
            twice or out of range.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"`classes` must be a text file, a class a line. {path}: {error}") from None
    names: list[str] = []
    colours: list[tuple[int, ...]] = []
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        words = line.split()
        if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
            colours.append(tuple(int(word) for word in words[-3:]))
            words = words[:-3]
        names.append(" ".join(words))
    if colours and len(colours) != len(names):
        raise UserError(
            f"{path}: colours must stand on every line or on none, as in 'road 255 0 0'. Received: "
            f"{len(names)} classes, {len(colours)} colours"
        )
    if len(set(colours)) != len(colours):
        raise UserError(f"{path}: two classes have one colour")
    try:
        return LabelSet(tuple(names), tuple(colours) or voc_palette(len(names))), bool(colours)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def build(
    images: str | Path,
    labels: str | Path,
    classes: str | Path,
    output_dir: str | Path,
    *,
    split: str,
    ignore_colour: tuple[int, int, int] | None = None,
    num_shards: int | None = None,
) -> Manifest:
    """Converts a folder of images and a folder of masks into one split.

    Args:
        images: folder of the images.
        labels: folder of the masks; each has the name of its image but for the ending.
        classes: classes file, see `read_classes`.
        output_dir: folder of the records.
        split: name of the split.
        ignore_colour: (red, green, blue) of pixels to ignore in RGB masks.
        num_shards: see `writer.convert`.

    Raises:
        UserError: a folder or the classes file is not good, or the inputs have problems (all are
            named).
    """
    label_set, has_colours = read_classes(classes)
    images, labels = Path(images), Path(labels)
    for flag, folder in (("images", images), ("labels", labels)):
        if not folder.is_dir():
            raise UserError(f"`{flag}` must be a folder. Not found: {folder}")
    if images.resolve() == labels.resolve():
        raise UserError(f"`images` and `labels` must be two folders. Received: {images}")
    if ignore_colour is not None:
        if not has_colours:
            raise UserError(f"`ignore_colour` needs colours in the classes file {classes}")
        if ignore_colour in label_set.colours:
            owner = label_set.names[label_set.colours.index(ignore_colour)]
            raise UserError(
                f"`ignore_colour` must not be the colour of a class. Received: {ignore_colour}, "
                f"the colour of {owner!r}"
            )
    read_label = inputs.read_index_mask
    if has_colours:
        read_label = functools.partial(
            inputs.read_index_or_colour_mask, ignore_colour=ignore_colour
        )
    problems: list[str] = []
    image_paths = _by_stem(images, inputs.IMAGE_SUFFIXES, problems)
    mask_paths = _by_stem(labels, inputs.MASK_SUFFIXES, problems)
    for stem in sorted(image_paths.keys() - mask_paths.keys()):
        problems.append(f"{image_paths[stem]}: image without a mask ({labels / stem}.png)")
    for stem in sorted(mask_paths.keys() - image_paths.keys()):
        problems.append(f"{mask_paths[stem]}: mask without an image in {images}")
    samples = [
        inputs.Sample(stem, image_paths[stem], mask_paths[stem])
        for stem in sorted(image_paths.keys() & mask_paths.keys())
    ]
    return writer.convert(
        {split: samples},
        output_dir=output_dir,
        label_set=label_set,
        read_label=read_label,
        num_shards=num_shards,
        problems=problems,
        tool="tfrecords_tools.build_folder",
        arguments={
            "images": str(images),
            "labels": str(labels),
            "classes": str(classes),
            "split": split,
            "ignore_colour": ignore_colour,
        },
    )[0]


def _by_stem(folder: Path, suffixes: tuple[str, ...], problems: list[str]) -> dict[str, Path]:
    """The files of a folder by name without ending; anything that would be left out is named."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in _LITTER:
            continue
        if path.is_dir():
            problems.append(f"{path}: is a folder; the files must lie in {folder} itself")
        elif path.suffix.lower() not in suffixes:
            problems.append(f"{path}: name must end in one of {', '.join(suffixes)}")
        elif path.stem in found:
            problems.append(f"{path}: id {path.stem!r} occurs twice (first as {found[path.stem]})")
        else:
            found[path.stem] = path
    return found


def _parse_colour(values: list[str] | None) -> tuple[int, int, int] | None:
    if not values:
        return None
    if len(values) != 3 or not all(one.isdecimal() and int(one) < 256 for one in values):
        raise UserError(f"`ignore_colour` must be red,green,blue, each 0..255. Received: {values}")
    return tuple(int(one) for one in values)


def define_flags() -> None:
    flags.DEFINE_string("images", "", "Folder of the images.")
    flags.DEFINE_string("labels", "", "Folder of the masks, named as the images but for endings.")
    flags.DEFINE_string("classes", "", "Text file, a class a line: name, or name red green blue.")
    flags.DEFINE_string("output_dir", "", "Folder of the records; made if it is not there.")
    flags.DEFINE_string("split", "", "Name of the split, such as train.")
    flags.DEFINE_list("ignore_colour", None, "Red,green,blue in RGB masks that is to be ignored.")
    flags.DEFINE_integer("num_shards", None, "Number of files; default: about 1000 images a file.")


def main(values: flags.FlagValues) -> None:
    program.require(values, "images", "labels", "classes", "output_dir", "split")
    manifest = build(
        values.images,
        values.labels,
        values.classes,
        values.output_dir,
        split=values.split,
        ignore_colour=_parse_colour(values.ignore_colour),
        num_shards=values.num_shards,
    )
    print(summary.report([manifest], values.output_dir))


if __name__ == "__main__":
    program.run(main, define_flags)
