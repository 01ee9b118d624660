"""What the converters of published layouts share: flags, folders, files that belong together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import options, summary
from tfrecords_tools.inputs import Sample

# Files that desktops and archivers leave in folders of pictures.
_LITTER = ("thumbs.db", "desktop.ini")


def define_flags(raw_dir: str, splits: Sequence[str] = ("train", "val")) -> None:
    """Defines `--raw_dir`, with the help given, `--output_dir`, `--splits` and the shared flags."""
    flags.DEFINE_string("raw_dir", "", raw_dir)
    flags.DEFINE_string("output_dir", "", "Folder of the records; made if it is not there.")
    flags.DEFINE_list("splits", list(splits), "Splits to convert.")
    options.define_flags()


def run(
    build: Callable[..., list[Manifest]], values: flags.FlagValues, *own: str
) -> list[Manifest]:
    """Calls a converter's `build` with its flags, and prints the table of what it made.

    Args:
        build: takes `raw_dir`, `output_dir`, `splits`, the shared flags and `own` by keyword.
        values: the parsed flags.
        *own: names of the converter's own flags.

    Raises:
        UserError: a flag that is needed was not given; or what `build` raises.
    """
    cli.require(values, "raw_dir", "output_dir", "splits")
    manifests = build(
        values.raw_dir,
        values.output_dir,
        splits=values.splits,
        **{name: values[name].value for name in own},
        **options.from_flags(values),
    )
    print(summary.report(manifests, values.output_dir))
    return manifests


def require_folders(raw_dir: Path, folders: Iterable[str | Path], layout: str) -> None:
    """Raises `UserError` unless all folders of a layout are there, naming the first that is not."""
    folders = [Path(folder) for folder in folders]
    for folder in folders:
        if not (raw_dir / folder).is_dir():
            raise UserError(
                f"`raw_dir` must be a folder in the layout of {layout}, with "
                f"{' and '.join(str(one) for one in folders)}. Not found: {raw_dir / folder}"
            )


def check_splits(splits: Sequence[str], known: Sequence[str] = ()) -> None:
    """Raises `UserError` unless the splits differ and, where `known` names some, are of these."""
    strangers = [split for split in splits if known and split not in known]
    if not splits or len(set(splits)) != len(splits) or strangers:
        rule = f" out of {', '.join(known)}" if known else ""
        raise UserError(f"`splits` must be names{rule} that differ. Received: {list(splits)}")


def files_by_id(
    folder: Path, endings: Sequence[str], problems: list[str], *, beside: Sequence[str] = ()
) -> dict[str, Path]:
    """The files of one folder by id: the name without its ending.

    Args:
        folder: where the files lie.
        endings: how their names may end, such as `_sat.jpg`; case does not matter.
        problems: what is found wrong is added: files and folders of other names, an id twice.
        beside: endings of files that belong to the layout and are not asked for here.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if name.startswith(".") or name in _LITTER:
            continue
        ending = next((one for one in endings if name.endswith(one.lower())), None)
        if path.is_dir():
            problems.append(f"{path}: is a folder; the files must lie in {folder} itself")
        elif ending is None:
            if not any(name.endswith(one.lower()) for one in beside):
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


def pairs(
    images: Mapping[str, Path], masks: Mapping[str, Path], problems: list[str]
) -> list[Sample]:
    """Samples of the ids that have both image and mask, sorted; the others are problems."""
    for name in sorted(images.keys() - masks.keys()):
        problems.append(f"{images[name]}: image without a mask")
    for name in sorted(masks.keys() - images.keys()):
        problems.append(f"{masks[name]}: mask without an image")
    return [Sample(name, images[name], masks[name]) for name in sorted(images.keys() & masks)]
