"""Cuts GeoTIFF scenes of any size, with masks as rasters or vector files, into records of tiles.

    python -m tfrecords_tools.build_scenes --scenes=scenes --labels=roads.gpkg \\
        --classes=classes.txt --output_dir=records --bands=4,3,2 --stretch=2,98 \\
        --tile=512 --overlap=64 --val_fraction=0.2

`--scenes` is a folder of TIFFs, or a glob in quotes. They have any number of bands of uint8, uint16
or int16, and are read window by window, so that memory does not grow with them. `--bands` are the
numbers, from 1, of the bands that become red, green and blue. `--stretch=2,98` maps the values from
the 2nd to the 98th percentile of each band over all scenes to 0 to 255, `--stretch=min,max` all of
them; `--limits=0,3000` names the values. The manifest holds bands and limits, a run on the records
keeps them, and `kseg.predict` applies them to TIFFs. Pixels without data are ignored in training.

`--labels` is one of
- a vector file of polygons (GeoJSON, GeoPackage, Shapefile) for all scenes, in any projection.
  `--class_field` names the field that holds the name or id of the class, or `ignore`. Without it
  every polygon is of the second of two classes. Pixels outside all polygons are of the first class,
  or of `--outside`. Where polygons overlap, the later one in the file counts;
- a folder with a file for each scene, of the same name except the ending: a TIFF with exactly the
  projection, size and grid of the scene, or a vector file as above. A TIFF holds the ids of the
  classes, 255 and nodata for pixels to ignore; if the classes file has colours, it holds colours.
  `--label_ending=_mask.tif` is the ending of the names of masks, if it differs.

`--val_fraction=0.2 --seed=0` holds a fifth of the scenes out for the split val: whole scenes, since
tiles of one scene overlap and resemble each other.
"""

import dataclasses
import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest
from kseg.data.masks import COLOURS, MaskRule
from kseg.data.names import canonical
from kseg.data.scene_bands import PICTURE, SceneBands
from kseg.errors import UserError
from tfrecords_tools import (
    layouts,
    lists,
    sample_checks,
    scene_flags,
    scene_masks,
    scene_stretch,
    scene_tiles,
    splits,
    staging,
    summary,
    writer,
)
from tfrecords_tools.scene_flags import define_flags
from tfrecords_tools.scene_labels import LabelRules, SceneLabels
from tfrecords_tools.scene_tiles import TileRules
from tfrecords_tools.scene_vectors import IGNORE


def build(
    scenes_at: str | Path,
    labels: str | Path,
    classes: str | Path,
    output_dir: str | Path,
    *,
    split: str = "train",
    tile: tuple[int, ...] = (512, 512),
    overlap: int = 64,
    min_labelled: float = 0.0,
    keep_background: float = 1.0,
    bands: Sequence[int] = (1, 2, 3),
    stretch: tuple[float, float] | None = None,
    limits: tuple[tuple[float, float], ...] | None = None,
    label_ending: str | None = None,
    masks_are: str | None = None,
    mask_nodata: str = "refuse",
    class_field: str | None = None,
    layer: str | None = None,
    outside: str | None = None,
    all_touched: bool = False,
    val_fraction: float = 0.0,
    seed: int = 0,
    group_by: str | None = None,
    on_error: str = "fail",
    **conversion: Any,
) -> list[Manifest]:
    """Cuts scenes into tiles and converts them, all or none.

    Args:
        scenes_at: Folder or glob of the scenes.
        labels: Vector file, or folder with a mask or a vector file for each scene.
        classes: Classes file, see `lists.read_classes`.
        output_dir: Folder of the records.
        split: Name of the split. Defaults to train.
        tile: See `scene_tiles.TileRules`, also for the next three. One number is a square.
        overlap: Defaults to 64.
        min_labelled: Defaults to 0.
        keep_background: Defaults to 1. It does not thin the tiles of the split that `val_fraction`
            holds out, whose scores it would change.
        bands: Numbers of the bands for red, green and blue. Defaults to the first three.
        stretch: See `scene_stretch.measure`, also for `limits`. Defaults to None.
        limits: Defaults to None.
        label_ending: Ending of the names of masks in place of `.tif`, such as `_mask.tif`.
        masks_are: `"ids"` or `"colours"`, see `lists.mask_rule`. Defaults to None: colours if the
            classes file has them.
        mask_nodata: See `scene_masks.open_raster`. Defaults to `"refuse"`.
        class_field: See `scene_vectors.VectorFile`, also for `layer` and `all_touched`.
        layer: Defaults to None.
        outside: Name of the class outside all polygons, or `ignore`. Defaults to None: the first.
        all_touched: Defaults to False.
        val_fraction: See `splits.hold_out`, also for the next two. Defaults to 0: one split.
        seed: Defaults to 0. It also decides which tiles `keep_background` keeps.
        group_by: Defaults to None.
        on_error: `"fail"` names every problem and converts nothing. `"skip"` leaves out scenes
            that have a problem. Defaults to `"fail"`.
        **conversion: `num_shards` and `workers` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If an argument is not valid or the input has problems.
    """
    arguments = {name: value for name, value in locals().items() if name != "conversion"}
    layouts.check_splits([split])
    label_set, has_colours = lists.read_classes(classes)
    mask_rule = lists.mask_rule(label_set, has_colours=has_colours, masks_are=masks_are)
    arguments["masks_are"] = mask_rule.masks_are
    # Raises an error before any file is read if bands or limits are not valid.
    dataclasses.replace(PICTURE, bands=tuple(bands), limits=limits or PICTURE.limits)
    outside_id = _outside_id(outside, label_set)
    rules = TileRules(
        tile=tuple(tile) * 2 if len(tile) == 1 else tuple(tile),
        overlap=overlap,
        min_labelled=min_labelled,
        keep_background=keep_background,
        background=0 if outside_id == label_set.ignore_label else outside_id,
        seed=seed,
    )
    label_rules = LabelRules(
        label_set=label_set,
        by_colour=mask_rule.masks_are == COLOURS,
        trusts_palettes=mask_rule.trusts_palettes,
        nodata=mask_nodata,
        vectors={
            "class_field": class_field,
            "layer": layer,
            "outside": outside_id,
            "all_touched": all_touched,
        },
        ending=label_ending,
    )
    problems: list[str] = []
    bad: dict[str, str] = {}
    found = find_scenes(scenes_at, label_ending, problems)
    dtype = scene_stretch.check_types(found, bands, bad)
    scene_labels = SceneLabels(Path(labels), found, label_rules, bad, problems)
    usable = {name: path for name, path in found.items() if name not in bad}
    problems += bad.values()
    problems += sample_checks.contradictions_of_files(
        scene_labels.rasters(usable), mask_rule, on_error, scene_masks.read_header
    )
    if problems and (on_error == "fail" or not usable):
        raise sample_checks.nothing_converted(problems)
    parts = {split: sorted(usable)}
    if val_fraction or group_by:
        parts = splits.hold_out(
            {name: name for name in usable},
            val_fraction,
            seed,
            train=split,
            group_by=group_by,
            what="scenes",
        )
    damaged: dict[str, str] = {}
    scene_bands = scene_stretch.measure(
        usable, bands, dtype, damaged, stretch=stretch, limits=limits
    )
    problems += damaged.values()
    if damaged and (on_error == "fail" or scene_bands is None):
        raise sample_checks.nothing_converted(problems)
    parts = {part: [name for name in names if name not in damaged] for part, names in parts.items()}
    print(_description(scene_bands, parts))
    with staging.unpacked(Path(output_dir), parts) as folders:
        samples = {
            part: scene_tiles.cut_scenes(
                {name: usable[name] for name in names},
                scene_labels,
                scene_bands,
                rules if part == split else dataclasses.replace(rules, keep_background=1.0),
                label_set,
                folders[part],
                problems,
            )
            for part, names in parts.items()
        }
        if problems and on_error == "fail":
            raise sample_checks.nothing_converted(problems)
        scene_labels.check_polygons()
        return writer.convert(
            samples,
            output_dir=output_dir,
            label_set=label_set,
            # The labels of tiles are ids. Those of one scene may differ as no masks should.
            read_label=MaskRule(trusts_palettes=True),
            mask_rule=mask_rule,
            problems=problems,
            on_error=on_error,
            scene_bands=scene_bands,
            tool="tfrecords_tools.build_scenes",
            arguments=arguments | {"scenes_of_splits": parts},
            **conversion,
        )


def find_scenes(at: str | Path, label_ending: str | None, problems: list[str]) -> dict[str, Path]:
    """Returns the scenes by name, which is that of the file without its ending, sorted.

    Args:
        at: Folder, glob or file.
        label_ending: Ending of the names of masks, which are not scenes. None: there is none.
        problems: Receives a message for each name that occurs twice.

    Raises:
        UserError: There is no TIFF.
    """
    folder = Path(at)
    if folder.is_dir():
        paths = sorted(folder.iterdir())
    elif folder.is_file():  # Tested before the glob, since a file name may contain brackets.
        paths = [folder]
    else:
        paths = sorted(map(Path, glob.glob(str(at))))
    found: dict[str, Path] = {}
    for path in paths:
        is_mask = label_ending and layouts.without_ending(path.name, label_ending) is not None
        if path.suffix.lower() not in scene_masks.SUFFIXES or path.name.startswith(".") or is_mask:
            continue
        name = canonical(path.stem)
        if name in found:
            problems.append(f"{path}: name {name!r} occurs twice, first as {found[name]}")
        else:
            found[name] = path
    if not found:
        raise UserError(
            "`scenes` must be a folder or a glob of files ending in "
            f"{' or '.join(scene_masks.SUFFIXES)}. Received: {at}"
        )
    return found


def _outside_id(outside: str | None, label_set: LabelSet) -> int:
    if outside is None:
        return 0
    if outside == IGNORE:
        return label_set.ignore_label
    if outside not in label_set.names:
        raise UserError(
            f"`outside` must be {IGNORE} or a class: {', '.join(label_set.names)}. "
            f"Received: {outside}"
        )
    return label_set.names.index(outside)


def _description(bands: SceneBands, parts: Mapping[str, Sequence[str]]) -> str:
    limits = ", ".join(
        f"{channel} = band {band}, {low:g} to {high:g}"
        for channel, band, (low, high) in zip(
            ("red", "green", "blue"), bands.bands, bands.limits, strict=True
        )
    )
    lines = [f"{bands.dtype} to 8 bits: {limits}"]
    lines += [f"scenes of {part}: {', '.join(names)}" for part, names in parts.items()]
    return "\n".join(lines)


def main(values: flags.FlagValues) -> None:
    """Converts, and prints the table."""
    cli.require(values, "scenes", "labels", "classes", "output_dir")
    names = (
        *("split", "overlap", "min_labelled", "keep_background", "label_ending", "masks_are"),
        *("mask_nodata", "class_field", "layer", "outside", "all_touched"),
        *("val_fraction", "seed", "group_by"),
    )
    manifests = build(
        values.scenes,
        values.labels,
        values.classes,
        values.output_dir,
        tile=cli.numbers(values, "tile", int),
        bands=scene_flags.parse_bands(values.bands),
        stretch=scene_flags.parse_stretch(values.stretch),
        limits=scene_flags.parse_limits(values.limits),
        **{name: values[name].value for name in names},
        **layouts.conversion_arguments(values),
    )
    print(summary.report(manifests, values.output_dir))


if __name__ == "__main__":
    cli.run(main, define_flags)
