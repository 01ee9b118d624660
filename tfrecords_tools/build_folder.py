"""Converts any folder of images and folder of masks, matched by name without ending.

    python -m tfrecords_tools.build_folder --images=photos --labels=masks --classes=classes.txt \\
        --output_dir=records --split=train

`photos/a.jpg` belongs to `masks/a.png`. The classes file has one class per line, and the first has
id 0. A line is a name, or a name and its colour as red, green and blue; `#` begins a comment:

    # id 0
    background 0 0 0
    road surface 255 255 255

If the classes file has colours, a mask is read by its colours, whether it is RGB, palette, grey or
1 bit; `--ignore_colour=r,g,b` gives the colour of pixels to ignore. Otherwise a mask holds the
class ids (palette indices or grey values), and 255 for pixels to ignore. Masks of other ids or
colours need a table, `--remap=remap.txt`, with lines such as `7 -> 0`, `128 64 128 -> 1`,
`0 -> ignore` and `other -> ignore`; they are colours if the table has any. `--masks_are=ids` or
`--masks_are=colours` overrides both, see docs/own_data.md.

Classes files of labelme, CVAT (labelmap.txt) and Roboflow (_classes.csv) are read, too. Masks
beside their images are told apart by `--label_ending`:

    python -m tfrecords_tools.build_folder --images=train --labels=train --label_ending=_mask.png \\
        --classes=train/_classes.csv --output_dir=records --split=train

To convert several splits at once, `{split}` stands for the name of each, all in one folder:

    python -m tfrecords_tools.build_folder --raw_dir=own --images={split}/images \\
        --labels={split}/masks --classes=classes.txt --output_dir=records --splits=train,val

`--val_fraction=0.2 --seed=0` holds a fifth of the images of one folder out for the split val.
`--group_by='^(.+)_frame'` keeps images together whose names match alike, such as the frames of a
video, which would otherwise stand in both splits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data import mask_files
from kseg.data.manifests import Manifest
from kseg.data.masks import Colour
from kseg.errors import UserError
from tfrecords_tools import inputs, layouts, lists, summary, writer
from tfrecords_tools import splits as split_tools


def build(
    images: str | Path,
    labels: str | Path,
    classes: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str],
    ignore_colour: Colour | None = None,
    remap: str | Path | None = None,
    masks_are: str | None = None,
    label_ending: str | None = None,
    val_fraction: float = 0.0,
    seed: int = 0,
    group_by: str | None = None,
    **conversion: Any,
) -> list[Manifest]:
    """Converts a folder of images and a folder of masks for each split, all or none.

    Args:
        images: Folder of the images. `{split}` in it stands for the name of the split.
        labels: Folder of the masks, likewise. A mask has the name of its image, except the ending.
            It may be the folder of the images if `label_ending` is given.
        classes: Classes file, see `lists.read_classes`.
        output_dir: Folder of the records.
        splits: Names of the splits.
        ignore_colour: (red, green, blue) of pixels to ignore. Defaults to none.
        remap: Table for what the masks hold, see `lists.read_remap`. Defaults to None. With a
            table, the colours of the classes file have no effect on reading.
        masks_are: `"ids"` or `"colours"`, see `lists.mask_rule`. Defaults to None: colours if the
            table, or else the classes file, gives colours.
        label_ending: Ending of the names of masks, such as `_mask.png`. Defaults to None: any of
            `mask_files.SUFFIXES`.
        val_fraction: Fraction of the images that is held out for the split `val`, see
            `splits.hold_out`. Defaults to 0: none. It needs a single split in `splits`.
        seed: Seed by which the images are drawn. Defaults to 0.
        group_by: Regular expression; images in whose names it finds the same stay in one split.
            Defaults to None: images are drawn one by one.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If a folder, the classes file or the table is not valid, or the input has
            problems (all of them are named).
    """
    label_set, has_colours = lists.read_classes(classes)
    rule = lists.mask_rule(
        label_set,
        has_colours=has_colours,
        masks_are=masks_are,
        remap=remap,
        ignore_colour=ignore_colour,
    )
    layouts.check_splits(splits)
    known = mask_files.SUFFIXES + inputs.IMAGE_SUFFIXES
    if label_ending and not label_ending.lower().endswith(known):
        raise UserError(
            "`label_ending` must include the ending of the files, as in _mask.png. Received: "
            f"{label_ending!r}"
        )
    if (val_fraction or group_by) and len(splits) > 1:
        raise UserError(
            "`val_fraction` and `group_by` need a single split, from which they hold images out. "
            f"Received: {', '.join(splits)}"
        )
    if len(splits) > 1 and not all("{split}" in str(folder) for folder in (images, labels)):
        raise UserError(
            "`images` and `labels` must contain '{split}' if there are several splits. Received: "
            f"{images} and {labels}"
        )
    problems: list[str] = []
    samples = {}
    for split in splits:
        folders = {
            "images": Path(str(images).replace("{split}", split)),
            "labels": Path(str(labels).replace("{split}", split)),
        }
        for argument, folder in folders.items():
            if not folder.is_dir():
                raise UserError(f"`{argument}` must be a folder. Not found: {folder}")
        if not label_ending and folders["images"].resolve() == folders["labels"].resolve():
            raise UserError(
                "`images` and `labels` must be different folders unless `label_ending` is given, "
                f"as in --label_ending=_mask.png. Received: {folders['images']}"
            )
        samples[split] = layouts.pair_folders(
            *folders.values(),
            inputs.IMAGE_SUFFIXES,
            problems,
            mask_endings=(label_ending,) if label_ending else mask_files.SUFFIXES,
            also_ignored=(Path(classes).name,),
        )
    held_out = {}
    if val_fraction or group_by:
        held_out = {"val_fraction": val_fraction, "seed": seed, "group_by": group_by}
        samples = split_tools.hold_out(
            {sample.name: sample for sample in samples[splits[0]]},
            val_fraction,
            seed,
            train=splits[0],
            group_by=group_by,
        )
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=label_set,
        read_label=rule,
        problems=problems,
        tool="tfrecords_tools.build_folder",
        arguments={
            "images": images,
            "labels": labels,
            "classes": classes,
            "splits": splits,
            "ignore_colour": ignore_colour,
            "remap": remap,
            "masks_are": masks_are,
            "label_ending": label_ending,
            **held_out,
        },
        **conversion,
    )


def define_flags() -> None:
    flags.DEFINE_string(
        "raw_dir",
        "",
        "Folder to which --images, --labels, --classes and --remap are relative. Default: the "
        "current folder.",
    )
    flags.DEFINE_string("images", "", "Folder of the images. {split} stands for the split.")
    flags.DEFINE_string(
        "labels", "", "Folder of the masks, which have the names of the images, except the endings."
    )
    flags.DEFINE_string(
        "classes",
        "",
        "Text file with one class per line: name, or name red green blue. Those of labelme, CVAT "
        "and Roboflow are read, too.",
    )
    flags.DEFINE_string("remap", "", "Text file of rules such as '7 -> 0' for what the masks hold.")
    flags.DEFINE_string("split", "", "Name of the split, such as train.")
    flags.DEFINE_list("splits", [], "Names of several splits, instead of --split.")
    flags.DEFINE_list("ignore_colour", None, "Red,green,blue of pixels to ignore.")
    flags.DEFINE_string(
        "label_ending",
        None,
        "Ending of the names of masks, such as _mask.png. Default: that of an image file.",
    )
    layouts.define_masks_are()
    split_tools.define_flags()
    layouts.define_conversion_flags()


def main(values: flags.FlagValues) -> None:
    cli.require(values, "images", "labels", "classes", "output_dir")
    if bool(values.split) == bool(values.splits):
        raise UserError("exactly one of `--split` and `--splits` must be given")
    raw_dir = Path(values.raw_dir)
    manifests = build(
        raw_dir / values.images,
        raw_dir / values.labels,
        raw_dir / values.classes,
        values.output_dir,
        splits=values.splits or [values.split],
        ignore_colour=layouts.parse_colour("ignore_colour", values.ignore_colour),
        remap=raw_dir / values.remap if values.remap else None,
        masks_are=values.masks_are,
        label_ending=values.label_ending,
        val_fraction=values.val_fraction,
        seed=values.seed,
        group_by=values.group_by,
        **layouts.conversion_arguments(values),
    )
    print(summary.report(manifests, values.output_dir))


if __name__ == "__main__":
    cli.run(main, define_flags)
