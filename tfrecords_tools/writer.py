"""The one writer of shards: every converter gives it samples, and it gives all or nothing.

`worker` reads and checks the samples in several processes; here their results are written in order,
so that the same input gives the same bytes whatever the number of processes. `staging` tells how a
split appears in one step, and how a conversion that was killed goes on.
"""

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kseg.data.datasets import LabelSet
from kseg.data.records import Manifest, encode_example, shard_name
from kseg.errors import UserError
from tfrecords_tools import inputs, options, worker
from tfrecords_tools.inputs import Sample
from tfrecords_tools.staging import Part, Staging, fingerprint

_EXAMPLES_PER_SHARD = 1000
_LEAST_SHARDS = 4
_SPLIT_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def convert(
    splits: dict[str, Sequence[Sample]],
    *,
    output_dir: str | os.PathLike,
    label_set: LabelSet,
    read_label: inputs.ReadLabel = inputs.read_index_mask,
    num_shards: int | None = None,
    workers: int | None = 1,
    on_error: str = "fail",
    problems: Iterable[str] = (),
    may_share: Collection[Collection[str]] = (),
    tool: str,
    arguments: dict,
) -> list[Manifest]:
    """Converts every split, or none.

    A run that was killed or stopped is taken up by the next: shards that it finished, and that
    would come out the same, are kept.

    Args:
        splits: split name -> its samples, in the order in which they are stored.
        output_dir: folder of the records; made if it is not there.
        label_set: classes of the labels.
        read_label: reads one label into ids, see `inputs`; with several workers a function of a
            module, or a `functools.partial` of one.
        num_shards: files per split. Defaults to about 1000 examples a file and at least 4 files
            (never more files than examples).
        workers: processes that read the samples. Defaults to this one; None is one a core, where
            the samples are worth it. A program that calls this with more than one must be
            importable (`if __name__ == "__main__":`).
        on_error: `"fail"`: every problem is found, then nothing is converted. `"skip"`: what is bad
            is left out, and told in the manifests.
        problems: what the converter has found itself (in lists and folders).
        may_share: pairs of splits that hold the same images by their nature, such as train and
            trainval. In any others the same name is a problem.
        tool: name of the program, for the manifest.
        arguments: what it was given, for the manifest; `num_shards` and `on_error` are added, but
            not `workers`, on which no byte may depend.

    Returns:
        The manifests, in the order of `splits`.

    Raises:
        UserError: every problem of every split, one a line; the folder is then as it was. Or an
            argument is not good, no image is left, or the folder cannot be written.
    """
    output_dir = Path(output_dir)
    if on_error not in options.ON_ERROR:
        raise UserError(f"`on_error` must be one of {options.ON_ERROR}. Received: {on_error!r}")
    for split, samples in splits.items():
        check_split_name(split)
        if num_shards is not None and not 1 <= num_shards <= max(1, min(len(samples), 99999)):
            raise UserError(
                f"`num_shards` must lie between 1 and the number of examples ({len(samples)} in "
                f"split {split!r}). Received: {num_shards}"
            )
    arguments = {**arguments, "num_shards": num_shards, "on_error": on_error}
    workers = worker.count(workers, sum(map(len, splits.values())))
    problems = list(problems)
    splits = _distinct(splits, may_share, problems)
    problems += [f"split {split!r} has no images" for split in splits if not splits[split]]
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`output_dir` {output_dir} cannot be made: {error.strerror}") from error
    import tensorflow as tf

    try:
        with contextlib.ExitStack() as stack:
            stagings = [stack.enter_context(Staging(output_dir, split)) for split in splits]
            prepare = stack.enter_context(worker.preparer(label_set, read_label, workers))
            parts = [
                _stage(
                    staging,
                    samples,
                    num_shards or _default_shards(len(samples)),
                    prepare,
                    functools.partial(fingerprint, label_set=label_set, read_label=read_label),
                    None if on_error == "skip" else problems,
                )
                for staging, samples in zip(stagings, splits.values(), strict=True)
            ]
            try:
                _refuse(dict(zip(splits, parts, strict=True)), problems, on_error)
            except UserError:
                for staging in stagings:
                    staging.remove()
                raise
            manifests = [
                _manifest(split, own, label_set, problems, tool, arguments)
                for split, own in zip(splits, parts, strict=True)
            ]
            for staging, manifest in zip(stagings, manifests, strict=True):
                staging.commit(manifest)
            # Only now: until all splits are there, a run that goes on needs all that was finished.
            for staging in stagings:
                staging.remove()
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write to {output_dir}: {error}") from error
    except KeyboardInterrupt as error:
        error.add_note("stopped; the same command goes on with the shards that were finished")
        raise
    return manifests


def check_split_name(split: str) -> None:
    """Raises `UserError` unless a split's name can be the beginning of a file name."""
    if not _SPLIT_NAME.fullmatch(split):
        raise UserError(
            "the name of a split must be letters, digits, '_', '-' and '.', and begin with a "
            f"letter or digit. Received: {split!r}"
        )


def _distinct(
    splits: dict[str, Sequence[Sample]],
    may_share: Collection[Collection[str]],
    problems: list[str],
) -> dict[str, list[Sample]]:
    """The splits without names that occurred before; those are problems."""
    shared = {frozenset(pair) for pair in may_share}
    homes: dict[str, dict[str, Sample]] = {}
    kept: dict[str, list[Sample]] = {}
    for split, samples in splits.items():
        kept[split] = []
        for sample in samples:
            found = homes.setdefault(sample.name, {})
            if split in found:
                problems.append(
                    f"{sample.image}: id {sample.name!r} occurs twice in split {split!r} "
                    f"(first as {found[split].image})"
                )
                continue
            others = [other for other in found if {other, split} not in shared]
            if others:
                problems.append(
                    f"{sample.image}: id {sample.name!r} of split {split!r} is in split "
                    f"{others[0]!r}, too ({found[others[0]].image})"
                )
                continue
            found[split] = sample
            kept[split].append(sample)
    return kept


def _default_shards(examples: int) -> int:
    return max(1, min(examples, max(_LEAST_SHARDS, -(-examples // _EXAMPLES_PER_SHARD))))


def _stage(
    staging: Staging,
    samples: Sequence[Sample],
    count: int,
    prepare: Callable[[Iterable[Sample]], Iterable[worker.Result]],
    sign: Callable[[Sequence[Sample]], str],
    problems: list[str] | None,
) -> list[Part]:
    """Finishes the hidden shards of one split; shard k holds a contiguous range of the samples.

    `problems` takes what is bad in the input; where it is None that is skipped.
    """
    bounds = [k * len(samples) // count for k in range(count + 1)]
    shards = [samples[start:stop] for start, stop in itertools.pairwise(bounds)]
    names = [shard_name(staging.split, k, count) for k in range(count)]
    signs = [sign(shard) for shard in shards]
    parts = [staging.finished(name, sign) for name, sign in zip(names, signs, strict=True)]
    # A shard that lacks something is good only where something may be skipped.
    kept = [part is not None and (problems is None or not part.skipped) for part in parts]
    todo = [k for k in range(count) if not kept[k]]
    results = iter(prepare(itertools.chain.from_iterable(shards[k] for k in todo)))
    left = sum(len(shards[k]) for k in todo)
    bar = tqdm(
        total=len(samples),
        initial=len(samples) - left,
        desc=staging.split,
        unit="image",
        disable=None,
    )
    with bar:
        for k in todo:
            own = _counted(itertools.islice(results, len(shards[k])), bar)
            if problems:
                # Nothing will come of it; the rest is checked for problems only.
                problems += [one for _, found in own for one in found]
                continue
            parts[k] = _write_shard(staging, names[k], signs[k], own)
            if problems is not None:
                problems += parts[k].skipped
    return [part for part in parts if part is not None]


def _counted(results: Iterable[worker.Result], bar: tqdm) -> Iterable[worker.Result]:
    for result in results:
        bar.update()
        yield result


def _write_shard(
    staging: Staging, name: str, signature: str, results: Iterable[worker.Result]
) -> Part:
    import tensorflow as tf

    pixels = np.zeros(256, np.int64)
    examples, skipped = 0, []
    with tf.io.TFRecordWriter(str(staging.path(name))) as file:
        for prepared, found in results:
            skipped += found
            if prepared is None:
                continue
            file.write(
                encode_example(
                    image=prepared.image,
                    image_format=prepared.image_format,
                    label=prepared.label,
                    height=prepared.height,
                    width=prepared.width,
                    filename=prepared.name,
                )
            )
            examples += 1
            pixels += prepared.pixels
    return staging.finish(name, signature, examples, pixels, skipped)


def _manifest(
    split: str,
    parts: list[Part],
    label_set: LabelSet,
    problems: list[str],
    tool: str,
    arguments: dict,
) -> Manifest:
    pixels = np.sum([part.pixels for part in parts], axis=0, dtype=np.int64).tolist()
    return Manifest(
        split=split,
        names=label_set.names,
        colours=label_set.colours,
        ignore_label=label_set.ignore_label,
        shards=tuple(part.shard for part in parts),
        pixels_per_class=tuple(pixels[: label_set.num_classes]),
        pixels_ignored=pixels[label_set.ignore_label],
        tool=tool,
        arguments=arguments,
        skipped=(*problems, *(one for part in parts for one in part.skipped)),
    )


def _refuse(parts: dict[str, list[Part]], problems: list[str], on_error: str) -> None:
    """Raises `UserError` for problems that are not skipped, and for a split with nothing left."""
    if on_error == "skip":
        empty = [own for own in parts.values() if not sum(part.shard.examples for part in own)]
        if not empty:
            return
        problems = [*problems, *(one for own in empty for part in own for one in part.skipped)]
    if problems:
        raise UserError(
            f"nothing was converted, {len(problems)} problem(s) in the input:\n  "
            + "\n  ".join(problems)
        )
