"""The table that every converter prints at its end."""

import os
from collections.abc import Sequence

from kseg.data.manifests import Manifest
from tfrecords_tools import histogram_warnings


def report(manifests: Sequence[Manifest], output_dir: str | os.PathLike) -> str:
    """Returns a short table: splits, images, shards, and the percentage of each class.

    Below it are warnings about masks that probably mean something else, and all that was skipped.

    Args:
        manifests: One manifest per split, all with the same classes.
        output_dir: Folder of the records.
    """
    lines = [f"{'split':<12}{'images':>8}{'shards':>8}{'MB':>9}"]
    for manifest in manifests:
        size = sum(shard.bytes for shard in manifest.shards) / 1e6
        lines.append(
            f"{manifest.split:<12}{manifest.num_examples:>8}{len(manifest.shards):>8}{size:>9.1f}"
        )
    names = (*manifests[0].names, "(ignored)")
    width = max(map(len, names)) + 2
    splits = "".join(f"{manifest.split:>12}" for manifest in manifests)
    lines += ["", "% of the label pixels", f"{'id':>4}  {'class':<{width}}{splits}"]
    ids = (*range(len(manifests[0].names)), manifests[0].ignore_label)
    for label, name in zip(ids, names, strict=True):
        percentages = "".join(f"{_percentage(manifest, label):>12}" for manifest in manifests)
        lines.append(f"{label:>4}  {name:<{width}}{percentages}")
    warnings = [f"warning: {text}" for text in histogram_warnings.warnings(manifests)]
    lines += ["", *warnings, f"written to {output_dir}"]
    skipped = list(dict.fromkeys(problem for manifest in manifests for problem in manifest.skipped))
    if skipped:
        lines += ["", f"skipped, {len(skipped)} problem(s) in the input:"]
        lines += [f"  {problem}" for problem in skipped]
    return "\n".join(lines)


def _percentage(manifest: Manifest, label: int) -> str:
    fraction = histogram_warnings.fractions(manifest)[label]
    # A dash, not 0.000, since a class that never occurs often means that the ids are wrong.
    return f"{100 * fraction:.3f}" if fraction else "-"
