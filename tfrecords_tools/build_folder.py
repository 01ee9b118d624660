"""Converts any folder of images and folder of masks, matched by name without ending.

    python -m tfrecords_tools.build_folder --images=photos --labels=masks --classes=classes.txt \\
        --output_dir=records --split=train

`photos/a.jpg` goes with `masks/a.png`. The classes file has one class a line, the first is id 0;
a line is a name, or a name and its colour as red, green, blue; `#` begins a line of comment:

    # id 0
    background 0 0 0
    road surface 255 255 255

A mask holds the ids themselves (palette PNG or grey), 255 where a pixel counts for nothing. With
colours in the classes file it may also be RGB in just these colours; `--ignore_colour=r,g,b` names
the colour, if any, that counts for nothing. A palette mask then must not show a class in the colour
of another, as it does when an editor has renumbered it. Masks that hold other ids or colours go
with a table, `--remap=remap.txt`, of lines such as `7 -> 0`, `128 64 128 -> 1`, `0 -> ignore` and
`other -> ignore`.

Several splits at once, `{split}` standing for the name of each, all below one folder:

    python -m tfrecords_tools.build_folder --raw_dir=own --images={split}/images \\
        --labels={split}/masks --classes=classes.txt --output_dir=records --splits=train,val
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import inputs, layouts, options, summary, writer
from tfrecords_tools.remap import read_remap, read_remapped_mask


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
    splits: Sequence[str],
    ignore_colour: tuple[int, int, int] | None = None,
    remap: str | Path | None = None,
    **conversion,
) -> list[Manifest]:
    """Converts folders of images and folders of masks, one of each for a split.

    Args:
        images: folder of the images; `{split}` in it stands for the name of the split.
        labels: folder of the masks, likewise; each has the name of its image but for the ending.
        classes: classes file, see `read_classes`.
        output_dir: folder of the records.
        splits: names of the splits.
        ignore_colour: (red, green, blue) of pixels to ignore in RGB masks.
        remap: table of what masks hold, see `remap`; with it only the table counts.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder, the classes file or the table is not good, or the inputs have problems
            (all are named).
    """
    label_set, has_colours = read_classes(classes)
    read_label = _reader(classes, label_set, has_colours, ignore_colour, remap)
    layouts.check_splits(splits)
    if len(splits) > 1 and not all("{split}" in str(one) for one in (images, labels)):
        raise UserError(
            "`images` and `labels` must hold '{split}' where there are several splits. Received: "
            f"{images} and {labels}"
        )
    problems: list[str] = []
    samples = {}
    for split in splits:
        writer.check_split_name(split)
        folders = [Path(str(one).replace("{split}", split)) for one in (images, labels)]
        for flag, folder in zip(("images", "labels"), folders, strict=True):
            if not folder.is_dir():
                raise UserError(f"`{flag}` must be a folder. Not found: {folder}")
        if folders[0].resolve() == folders[1].resolve():
            raise UserError(f"`images` and `labels` must be two folders. Received: {folders[0]}")
        samples[split] = layouts.pairs(
            layouts.files_by_id(folders[0], inputs.IMAGE_SUFFIXES, problems),
            layouts.files_by_id(folders[1], inputs.MASK_SUFFIXES, problems),
            problems,
        )
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=label_set,
        read_label=read_label,
        problems=problems,
        tool="tfrecords_tools.build_folder",
        arguments={
            "images": str(images),
            "labels": str(labels),
            "classes": str(classes),
            "splits": list(splits),
            "ignore_colour": ignore_colour,
            "remap": None if remap is None else str(remap),
        },
        **conversion,
    )


def _reader(
    classes: str | Path,
    label_set: LabelSet,
    has_colours: bool,
    ignore_colour: tuple[int, int, int] | None,
    remap: str | Path | None,
) -> inputs.ReadLabel:
    """What reads the masks: the table, else the colours of the classes, else the ids alone."""
    if remap is not None:
        if ignore_colour is not None:
            raise UserError("`ignore_colour` must be a rule of the table where there is a `remap`")
        return functools.partial(read_remapped_mask, remap=read_remap(remap, label_set))
    if ignore_colour is not None:
        if not has_colours:
            raise UserError(f"`ignore_colour` needs colours in the classes file {classes}")
        if ignore_colour in label_set.colours:
            owner = label_set.names[label_set.colours.index(ignore_colour)]
            raise UserError(
                f"`ignore_colour` must not be the colour of a class. Received: {ignore_colour}, "
                f"the colour of {owner!r}"
            )
    if has_colours:
        return functools.partial(inputs.read_index_or_colour_mask, ignore_colour=ignore_colour)
    return inputs.read_mask_of_any_palette


def _parse_colour(values: list[str] | None) -> tuple[int, int, int] | None:
    if not values:
        return None
    if len(values) != 3 or not all(one.isdecimal() and int(one) < 256 for one in values):
        raise UserError(f"`ignore_colour` must be red,green,blue, each 0..255. Received: {values}")
    return tuple(int(one) for one in values)


def define_flags() -> None:
    flags.DEFINE_string(
        "raw_dir", "", "Folder from which the next four begin; default: the current one."
    )
    flags.DEFINE_string("images", "", "Folder of the images; {split} stands for the split.")
    flags.DEFINE_string("labels", "", "Folder of the masks, named as the images but for endings.")
    flags.DEFINE_string("classes", "", "Text file, a class a line: name, or name red green blue.")
    flags.DEFINE_string("remap", "", "Text file of rules such as '7 -> 0' for what masks hold.")
    flags.DEFINE_string("output_dir", "", "Folder of the records; made if it is not there.")
    flags.DEFINE_string("split", "", "Name of the split, such as train.")
    flags.DEFINE_list("splits", [], "Names of several splits, instead of --split.")
    flags.DEFINE_list("ignore_colour", None, "Red,green,blue in RGB masks that is to be ignored.")
    options.define_flags()


def main(values: flags.FlagValues) -> None:
    cli.require(values, "images", "labels", "classes", "output_dir")
    if bool(values.split) == bool(values.splits):
        raise UserError("`--split` or `--splits` must be given, and not both")
    raw_dir = Path(values.raw_dir)
    manifests = build(
        raw_dir / values.images,
        raw_dir / values.labels,
        raw_dir / values.classes,
        values.output_dir,
        splits=values.splits or [values.split],
        ignore_colour=_parse_colour(values.ignore_colour),
        remap=raw_dir / values.remap if values.remap else None,
        **options.from_flags(values),
    )
    print(summary.report(manifests, values.output_dir))


if __name__ == "__main__":
    cli.run(main, define_flags)
