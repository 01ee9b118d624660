"""What the converters share: flags, checks of a layout, and files matched by name."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data.checked_images import EXIF
from kseg.data.manifests import Manifest
from kseg.data.masks import IDS, MASKS_ARE
from kseg.data.names import canonical, is_dangling, is_text, shown
from kseg.errors import UserError
from tfrecords_tools import summary, worker, writer
from tfrecords_tools.inputs import Sample

# Files and folders that desktops, archives and servers leave in folders of images.
_CLUTTER = (
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
    *("icon\r", "__macosx", "@eadir"),
)


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
        "num_shards",
        None,
        "Files per split. Default: one for about 1000 images, and at least 4.",
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


def define_masks_are(*, takes_colours: bool = True) -> None:
    """Defines `--masks_are`.

    Args:
        takes_colours: Whether masks may be colours. Defaults to True.
    """
    if takes_colours:
        more = (
            "colours: the colours of the classes file or the remap table. Default: colours if "
            "these were given for the masks, else ids."
        )
    else:
        more = "Default: the same, but palettes that contradict each other are an error."
    flags.DEFINE_enum(
        "masks_are",
        None,
        list(MASKS_ARE) if takes_colours else [IDS],
        f"What masks hold. ids: palette indices or grey values, whatever the palettes show. {more}",
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
    folder: Path,
    endings: Sequence[str],
    problems: list[str],
    *,
    ignored: Sequence[str] = (),
    ambiguous: set[str] | None = None,
) -> dict[str, Path]:
    """Returns the files of one folder by id, which is the name without its ending.

    Ids are in composed form (NFC), so that files of several systems match.

    Args:
        folder: The folder.
        endings: Endings of the names, such as `_sat.jpg`. Case does not matter.
        problems: Receives a message for each file with another ending, each folder, each name that
            is not UTF-8, each link to nothing, and all files of an id that occurs several times,
            of which none is returned.
        ignored: Endings of files that belong to the layout but are not needed. Defaults to none.
            If a name has an ending of both kinds, the longer one counts.
        ambiguous: Receives the ids that are left out because of a problem with their files.
    """
    endings, ignored = [*map(canonical, endings)], [*map(canonical, ignored)]
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name = canonical(path.name).lower()
        if name.startswith(".") or name in _CLUTTER:
            continue
        ending, unneeded = _longest_ending(name, endings), _longest_ending(name, ignored)
        if path.is_dir():
            problems.append(f"{shown(path)}: is a folder; the files must be in {folder} itself")
        elif len(unneeded) > len(ending):
            continue
        elif not ending:
            problems.append(f"{shown(path)}: name must end in {' or '.join(endings)}")
        else:
            name = canonical(path.name)[: -len(ending)]
            if name:
                found.setdefault(name, []).append(path)
            else:
                problems.append(f"{path}: there is no id before {ending}")
    files = {}
    for name, paths in found.items():
        if problem := _problem_of(name, paths):
            problems.append(problem)
            if ambiguous is not None:
                ambiguous.add(name)
        else:
            files[name] = paths[0]
    return files


def without_ending(name: str, ending: str) -> str | None:
    """Returns the name of a file in composed form without an ending, whose case does not matter.

    Returns:
        None if it has another ending.
    """
    name, ending = canonical(name), canonical(ending)
    return name[: -len(ending)] if name.lower().endswith(ending.lower()) else None


def _longest_ending(name: str, endings: Sequence[str]) -> str:
    return max((end for end in endings if name.endswith(end.lower())), key=len, default="")


def _problem_of(name: str, paths: Sequence[Path]) -> str:
    """Returns what is wrong with the files of an id, or nothing."""
    if not is_text(name):
        return f"{shown(paths[0])}: the name is not UTF-8; rename the file"
    if len(paths) > 1:
        first, *others = paths
        return f"{first}: id {name!r} occurs twice, also as {' and '.join(map(str, others))}"
    if is_dangling(paths[0]):
        return f"{paths[0]}: is a link to a file that does not exist"
    return ""


def pair(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    problems: list[str],
    *,
    ambiguous: Collection[str] = (),
) -> list[Sample]:
    """Returns samples of the ids with image and mask, sorted by id.

    Args:
        images: The images by id.
        masks: The masks by id.
        problems: Receives a message for each image without a mask and each mask without an image.
        ambiguous: Ids whose files are problems already.
    """
    for name in sorted(images.keys() - masks.keys() - set(ambiguous)):
        problems.append(f"{images[name]}: image without a mask")
    for name in sorted(masks.keys() - images.keys() - set(ambiguous)):
        problems.append(f"{masks[name]}: mask without an image")
    return [Sample(name, images[name], masks[name]) for name in sorted(images.keys() & masks)]


def pair_folders(
    images: Path,
    masks: Path,
    image_endings: Sequence[str],
    problems: list[str],
    *,
    mask_endings: Sequence[str] = (".png",),
    also_ignored: Sequence[str] = (),
) -> list[Sample]:
    """Pairs the images and masks in two folders, or in one, by id; see `files_by_id` and `pair`.

    Args:
        images: Folder of the images.
        masks: Folder of the masks. If it is that of the images, only the endings tell them apart.
        image_endings: Endings of the images.
        problems: Receives a message for each problem.
        mask_endings: Endings of the masks. Defaults to `.png`.
        also_ignored: Names of other files in the folders. Defaults to none.
    """
    ambiguous: set[str] = set()
    same_folder = images.resolve() == masks.resolve()
    images_by_id, masks_by_id = (
        files_by_id(
            folder,
            endings,
            problems,
            ignored=(*also_ignored, *others) if same_folder else also_ignored,
            ambiguous=ambiguous,
        )
        for folder, endings, others in (
            (images, image_endings, mask_endings),
            (masks, mask_endings, image_endings),
        )
    )
    return pair(images_by_id, masks_by_id, problems, ambiguous=ambiguous)
