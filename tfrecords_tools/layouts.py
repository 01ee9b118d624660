"""What the converters share: flags, checks of a layout, and files matched by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data.checked_images import EXIF
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import summary, worker, writer
from tfrecords_tools.inputs import Sample

# Files that desktops leave in folders of images.
_CLUTTER = ("thumbs.db", "desktop.ini")


def define_flags(raw_dir_help: str, splits: Sequence[str] = ("train", "val")) -> None:
    """Defines the flags of a converter of a published layout.

    Args:
        raw_dir_help: The help of `--raw_dir`.
        splits: The default of `--splits`. Defaults to train and val.
    """
    flags.DEFINE_string("raw_dir", "", raw_dir_help)
    flags.DEFINE_list("splits", list(splits), "Splits to convert.")
    define_conversion_flags()


def define_conversion_flags() -> None:
    """Defines `--output_dir` and the flags about how a conversion is done."""
    flags.DEFINE_string("output_dir", "", "Folder of the records. It is created if missing.")
    flags.DEFINE_integer(
        "num_shards", None, "Files per split. Default: about 1000 images per file."
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes that read the images. Default: one per CPU core, but at most one for every "
        f"{worker.WORTH_A_PROCESS} images. Never more than images.",
    )
    flags.DEFINE_enum(
        "on_error",
        "fail",
        list(writer.ON_ERROR),
        "What to do with bad input. fail: report every problem and convert nothing. skip: leave "
        "out the bad images and list them, also in the manifest.",
    )
    flags.DEFINE_enum(
        "exif",
        "refuse",
        list(EXIF),
        "What to do with images that have an EXIF orientation. apply: turn them as viewers show "
        "them, if the masks are turned as well. ignore: keep them as they are stored, if the masks "
        "fit the stored pixels.",
    )
    flags.DEFINE_list(
        "matte",
        None,
        "Red,green,blue on which transparent pixels of images are composited. Default: images with "
        "transparent pixels are refused.",
    )


def conversion_arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the flags about how a conversion is done as keyword arguments of `writer.convert`."""
    names = ("num_shards", "workers", "on_error", "exif")
    arguments = {name: values[name].value for name in names}
    return {**arguments, "matte": parse_colour("matte", values.matte)}


def parse_colour(name: str, values: list[str] | None) -> tuple[int, int, int] | None:
    """Returns the value of a list flag as (red, green, blue); None if it is empty.

    Raises:
        UserError: If it is not a colour.
    """
    if not values:
        return None
    if len(values) != 3 or not all(value.isdecimal() and int(value) < 256 for value in values):
        raise UserError(
            f"`{name}` must be red,green,blue with values from 0 to 255. Received: "
            f"{','.join(values)}"
        )
    return tuple(map(int, values))


def run(
    build: Callable[..., list[Manifest]], values: flags.FlagValues, *names: str
) -> list[Manifest]:
    """Calls the `build` function of a converter with its flags and prints the summary.

    Args:
        build: The function. It takes `raw_dir`, `output_dir`, `splits`, `names` and the keyword
            arguments of `conversion_arguments`.
        values: The parsed flags.
        *names: Names of the flags of this converter only.

    Raises:
        UserError: If a required flag is missing, or from `build`.
    """
    cli.require(values, "raw_dir", "output_dir", "splits")
    arguments = {name: values[name].value for name in ("raw_dir", "output_dir", "splits", *names)}
    manifests = build(**arguments, **conversion_arguments(values))
    print(summary.report(manifests, values.output_dir))
    return manifests


def require_layout(
    folder: Path, names: Iterable[str | Path], layout: str, argument: str = "raw_dir"
) -> None:
    """Raises `UserError` unless a folder has all folders and `.txt` files of a layout."""
    names = [Path(name) for name in names]
    for path in (folder / name for name in names):
        if not (path.is_file() if path.suffix == ".txt" else path.is_dir()):
            raise UserError(
                f"`{argument}` must be a folder in the layout of {layout}, with "
                f"{', '.join(map(str, names))}. Not found: {path}"
            )


def check_splits(splits: Sequence[str], known: Sequence[str] = ()) -> None:
    """Raises `UserError` unless split names are valid, distinct and, if `known` is given, in it."""
    unknown = [split for split in splits if known and split not in known]
    if not splits or len(set(splits)) != len(splits) or unknown:
        rule = f" from {', '.join(known)}" if known else ""
        raise UserError(
            f"`splits` must be distinct names{rule}. Received: {', '.join(splits) or 'none'}"
        )
    for split in splits:
        writer.check_split_name(split)


def files_by_id(
    folder: Path, endings: Sequence[str], problems: list[str], *, ignored: Sequence[str] = ()
) -> dict[str, Path]:
    """Returns the files of one folder by id, which is the name without its ending.

    Args:
        folder: The folder.
        endings: Endings of the names, such as `_sat.jpg`. Case does not matter.
        problems: Receives a message for each file with another ending, each folder and each id
            that occurs twice.
        ignored: Endings of files that belong to the layout but are not needed. Defaults to none.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if name.startswith(".") or name in _CLUTTER:
            continue
        ending = next((ending for ending in endings if name.endswith(ending.lower())), None)
        if path.is_dir():
            problems.append(f"{path}: is a folder; the files must be in {folder} itself")
        elif ending is None:
            if not name.endswith(tuple(ending.lower() for ending in ignored)):
                problems.append(f"{path}: name must end in {' or '.join(endings)}")
        else:
            name = path.name[: -len(ending)]
            if not name:
                problems.append(f"{path}: there is no id before {ending}")
            elif name in found:
                problems.append(f"{path}: id {name!r} occurs twice (first as {found[name]})")
            else:
                found[name] = path
    return found


def pair(
    images: Mapping[str, Path], masks: Mapping[str, Path], problems: list[str]
) -> list[Sample]:
    """Returns samples of the ids with image and mask, sorted; `problems` receives the others."""
    for name in sorted(images.keys() - masks.keys()):
        problems.append(f"{images[name]}: image without a mask")
    for name in sorted(masks.keys() - images.keys()):
        problems.append(f"{masks[name]}: mask without an image")
    return [Sample(name, images[name], masks[name]) for name in sorted(images.keys() & masks)]


def pair_folders(
    images: Path,
    masks: Path,
    image_endings: Sequence[str],
    problems: list[str],
    *,
    mask_endings: Sequence[str] = (".png",),
) -> list[Sample]:
    """Pairs the images and masks in two folders by id; see `files_by_id` and `pair`."""
    return pair(
        files_by_id(images, image_endings, problems),
        files_by_id(masks, mask_endings, problems),
        problems,
    )
