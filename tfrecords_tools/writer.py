"""Writes shards: every converter gives it samples, and it converts all of them or none.

`worker` reads and checks the samples in several processes. Here their results are written in order,
so that the same input gives the same bytes, whatever the number of processes. `staging` makes a
split appear in one step and lets a conversion that was killed continue.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kseg.cli.start import start_tensorflow
from kseg.data.checked_images import DEFAULT_RULES, EXIF, ImageRules
from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest, finished_splits, shard_name
from kseg.data.masks import CLASS_IDS, MaskRule
from kseg.data.records import encode_example
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError, file_failure
from tfrecords_tools import conversion_manifest, inputs, sample_checks, worker
from tfrecords_tools.inputs import Sample
from tfrecords_tools.staging import Part, Staging, fingerprint

ON_ERROR = ("fail", "skip")
_EXAMPLES_PER_SHARD = 1000
_MIN_SHARDS = 4
_MAX_SHARDS = 99999
_SPLIT_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def convert(
    splits: Mapping[str, Sequence[Sample]],
    *,
    output_dir: str | os.PathLike,
    label_set: LabelSet,
    read_label: inputs.ReadLabel = CLASS_IDS,
    mask_rule: MaskRule | None = None,
    num_shards: int | None = None,
    workers: int | None = 1,
    on_error: str = "fail",
    problems: Iterable[str] = (),
    may_share: Collection[Collection[str]] = (),
    exif: str = "refuse",
    matte: tuple[int, int, int] | None = None,
    scene_bands: SceneBands | None = None,
    tool: str,
    arguments: Mapping[str, Any],
) -> list[Manifest]:
    """Converts every split, or none.

    If an earlier run was killed or stopped, this one continues it: shards that were finished and
    would come out the same are kept.

    Args:
        splits: The samples of each split, in the order in which they are stored.
        output_dir: Folder of the records. It is created if missing.
        label_set: The classes of the labels.
        read_label: Reads one label into ids, see `inputs`. Defaults to masks of ids. With several
            workers it must be a `MaskRule`, a function of a module, or a `functools.partial` of
            one.
        mask_rule: What the masks meant, for the manifest, if the labels were made from masks by the
            caller. Defaults to None: what `read_label` says, or ids.
        num_shards: Files per split. Defaults to about 1000 examples per file and at least 4 files,
            but never more files than examples.
        workers: Processes that read the samples. Defaults to 1, this process. None stands for one
            per CPU core, if there are enough samples. A program that asks for more than one must
            be importable (`if __name__ == "__main__":`).
        on_error: `"fail"` finds every problem and then converts nothing. `"skip"` leaves out bad
            samples and lists them in the manifests. Defaults to `"fail"`.
        problems: Problems that the converter has found (in lists and folders).
        may_share: Pairs of splits that have images in common by definition, such as train and
            trainval. In all others, a name that occurs twice is a problem.
        exif: What happens to images with an EXIF orientation, see `checked_images.ImageRules`.
            Defaults to `"refuse"`.
        matte: (red, green, blue) on which transparent pixels of images are composited. Defaults to
            None: images with transparent pixels are refused.
        scene_bands: How the images were made from the bands of scenes, for the manifest. Defaults
            to None: they were not.
        tool: Name of the program, for the manifest.
        arguments: Arguments of the program, for the manifest. The arguments above that can affect
            a byte are added: `num_shards`, `on_error`, and `exif` and `matte` if they are given.

    Returns:
        The manifests, in the order of `splits`.

    Raises:
        UserError: If there are problems; the message has all of them, one per line, and the folder
            is as it was before. Or if an argument is out of range, no image is left, or the folder
            cannot be written.
    """
    output_dir = Path(output_dir)
    if on_error not in ON_ERROR:
        raise UserError(f"`on_error` must be one of {', '.join(ON_ERROR)}. Received: {on_error!r}")
    for split, samples in splits.items():
        check_split_name(split)
        limit = max(1, min(len(samples), _MAX_SHARDS))
        if num_shards is not None and not 1 <= num_shards <= limit:
            raise UserError(
                f"`num_shards` must be between 1 and the number of examples ({len(samples)} in "
                f"split {split!r}). Received: {num_shards}"
            )
    if exif not in EXIF:
        raise UserError(f"`exif` must be one of {', '.join(EXIF)}. Received: {exif!r}")
    rules = ImageRules(exif, matte)
    arguments = {**arguments, "num_shards": num_shards, "on_error": on_error}
    if rules != DEFAULT_RULES:
        arguments |= dataclasses.asdict(rules)
    workers = worker.count(workers, sum(map(len, splits.values())))
    problems = list(problems)
    splits = sample_checks.without_duplicates(splits, may_share, problems)
    if not problems:  # Otherwise they may be why a split is empty.
        problems += [f"split {split!r} has no images" for split in splits if not splits[split]]
    rule = read_label if isinstance(read_label, MaskRule) else CLASS_IDS
    problems += sample_checks.contradictions(splits, rule, on_error)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`output_dir` {output_dir} cannot be created: {error.strerror}") from error
    for split in set(splits) & set(finished_splits(output_dir)):
        print(f"note: the finished split {split!r} in {output_dir} is replaced", flush=True)
    start_tensorflow()
    import tensorflow as tf

    from tfrecords_tools import decoding

    try:
        with contextlib.ExitStack() as stack:
            stagings = [stack.enter_context(Staging(output_dir, split)) for split in splits]
            prepare = stack.enter_context(decoding.preparer(label_set, read_label, workers, rules))
            parts = [
                _write_split(
                    staging,
                    samples,
                    num_shards or _default_num_shards(len(samples)),
                    prepare,
                    functools.partial(
                        fingerprint, label_set=label_set, read_label=read_label, rules=rules
                    ),
                    None if on_error == "skip" else problems,
                )
                for staging, samples in zip(stagings, splits.values(), strict=True)
            ]
            try:
                _check(dict(zip(splits, parts, strict=True)), problems, on_error)
            except UserError:
                for staging in stagings:
                    staging.remove()
                raise
            manifests = [
                conversion_manifest.make_manifest(
                    split,
                    label_set,
                    [part.shard for part in parts_of_split],
                    np.sum([part.pixels for part in parts_of_split], axis=0),
                    tool=tool,
                    arguments=arguments,
                    rule=mask_rule or rule,
                    skipped=(*problems, *_skipped(parts_of_split)),
                    scene_bands=scene_bands,
                )
                for split, parts_of_split in zip(splits, parts, strict=True)
            ]
            for staging, manifest in zip(stagings, manifests, strict=True):
                staging.commit(manifest)
            # Not earlier: until all splits are done, a run that continues needs every shard.
            for staging in stagings:
                staging.remove()
    except OSError as error:
        raise UserError(f"cannot write to {output_dir}: {error.strerror or error}") from error
    except tf.errors.OpError as error:
        failure = file_failure(error)
        if failure is None:
            raise
        raise UserError(f"cannot write to {output_dir}: {failure[1]}") from error
    except KeyboardInterrupt as error:
        error.add_note("stopped; the same command continues with the shards that were finished")
        raise
    return manifests


def check_split_name(split: str) -> None:
    """Raises `UserError` unless the name of a split can be the beginning of a file name."""
    if not _SPLIT_NAME.fullmatch(split):
        raise UserError(
            "`splits`: a name must consist of letters, digits, '_', '-' and '.', and begin with a "
            f"letter, digit or '_'. Received: {split!r}"
        )


def _default_num_shards(examples: int) -> int:
    return max(1, min(examples, max(_MIN_SHARDS, -(-examples // _EXAMPLES_PER_SHARD))))


def _write_split(
    staging: Staging,
    samples: Sequence[Sample],
    count: int,
    prepare: Callable[[Iterable[Sample]], Iterable[worker.Result]],
    sign: Callable[[Sequence[Sample]], str],
    problems: list[str] | None,
) -> list[Part]:
    """Finishes the hidden shards of one split; shard k has a contiguous range of the samples.

    `problems` receives what is bad in the input; if it is None, bad samples are skipped.
    """
    bounds = [k * len(samples) // count for k in range(count + 1)]
    shards = [samples[start:stop] for start, stop in itertools.pairwise(bounds)]
    names = [shard_name(staging.split, k, count) for k in range(count)]
    signatures = [sign(shard) for shard in shards]
    parts = list(map(staging.finished, names, signatures))
    # A shard that was written without some samples is good only if samples may be skipped.
    kept = [part is not None and (problems is None or not part.skipped) for part in parts]
    todo = [k for k in range(count) if not kept[k]]
    bar = tqdm(
        prepare(itertools.chain.from_iterable(shards[k] for k in todo)),
        total=len(samples),
        initial=len(samples) - sum(len(shards[k]) for k in todo),
        desc=staging.split,
        unit="image",
        disable=None,
    )
    with bar:
        results = iter(bar)
        for k in todo:
            results_of_shard = itertools.islice(results, len(shards[k]))
            if problems:
                # Nothing will be converted; the remaining samples are only checked.
                problems += [problem for _, found in results_of_shard for problem in found]
                continue
            parts[k] = _write_shard(staging, names[k], signatures[k], results_of_shard)
            if problems is not None:
                problems += parts[k].skipped
    return [part for part in parts if part is not None]


def _write_shard(
    staging: Staging, name: str, signature: str, results: Iterable[worker.Result]
) -> Part:
    import tensorflow as tf

    pixels = np.zeros(256, np.int64)
    examples, skipped = 0, []
    with tf.io.TFRecordWriter(str(staging.path(name))) as file:
        for prepared, problems in results:
            skipped += problems
            if prepared is None:
                continue
            file.write(encode_example(**prepared.example))
            examples += 1
            pixels += prepared.pixels
    return staging.finish(name, signature, examples, pixels, skipped)


def _skipped(parts: Iterable[Part]) -> list[str]:
    return [problem for part in parts for problem in part.skipped]


def _check(parts: Mapping[str, Sequence[Part]], problems: Sequence[str], on_error: str) -> None:
    """Raises `UserError` for problems that are not skipped, and for a split with nothing left.

    Args:
        parts: The shards of each split.
        problems: What is bad in the input; with `"skip"`, without the samples.
        on_error: See `convert`.
    """
    if on_error == "skip":
        empty = [split for split in parts if not sum(part.shard.examples for part in parts[split])]
        if empty:
            raise sample_checks.nothing_converted(
                [*problems, *itertools.chain(*(_skipped(parts[split]) for split in empty))],
                f"since no image is left in split {', '.join(map(repr, empty))}",
            )
    elif problems:
        raise sample_checks.nothing_converted(problems)
