"""The table that every converter prints at its end."""

import os
from collections.abc import Sequence

from kseg.data.records import Manifest


def report(manifests: Sequence[Manifest], output_dir: str | os.PathLike) -> str:
    """A short table: split, images, shards, share of each class in the label pixels, folder.

    Below it, a line each: splits whose masks seem to mean something else, and what was skipped.
    """
    lines = [f"{'split':<12}{'images':>8}{'shards':>8}{'MB':>9}"]
    for manifest in manifests:
        size = sum(shard.bytes for shard in manifest.shards) / 1e6
        lines.append(
            f"{manifest.split:<12}{manifest.num_examples:>8}{len(manifest.shards):>8}{size:>9.1f}"
        )
    lines += ["", "share of the label pixels, %"]
    width = max(len(name) for name in (*manifests[0].names, "(ignored)")) + 2
    lines.append(f"{'id':>4}  {'class':<{width}}" + "".join(f"{m.split:>12}" for m in manifests))
    ids = (*range(len(manifests[0].names)), manifests[0].ignore_label)
    for label, name in zip(ids, (*manifests[0].names, "(ignored)"), strict=True):
        shares = "".join(f"{_share(manifest, label):>12}" for manifest in manifests)
        lines.append(f"{label:>4}  {name:<{width}}{shares}")
    lines += ["", *filter(None, map(_one_class, manifests)), f"written to {output_dir}"]
    skipped = list(dict.fromkeys(one for manifest in manifests for one in manifest.skipped))
    if skipped:
        lines += ["", f"skipped, {len(skipped)} problem(s) in the input:"]
        lines += [f"  {one}" for one in skipped]
    return "\n".join(lines)


def _one_class(manifest: Manifest) -> str:
    """A note if no two classes occur, as from masks of 0 and 255 for two classes; else nothing."""
    present = [label for label, pixels in enumerate(manifest.pixels_per_class) if pixels]
    if len(present) > 1:
        return ""
    first, ignored = present[0] if present else 0, manifest.ignore_label
    what = "no pixel is labelled"
    if present:
        what = f"all labelled pixels are {manifest.names[first]!r}"
    if manifest.pixels_ignored:
        what += f", and {_share(manifest, ignored)} % of all pixels are ignored ({ignored})"
    return (
        f"note: in split {manifest.split!r} {what}; if the masks mean more than that, convert with "
        "tfrecords_tools.build_folder and a --remap table of rules such as "
        f"`{first} -> {first}` and `{ignored} -> {0 if first else 1}`"
    )


def _share(manifest: Manifest, label: int) -> str:
    pixels = dict(enumerate(manifest.pixels_per_class))
    pixels[manifest.ignore_label] = manifest.pixels_ignored
    # A dash, not 0.000: a class that never occurs is often a mask with other ids than meant.
    return f"{100 * pixels[label] / sum(pixels.values()):.3f}" if pixels[label] else "-"
