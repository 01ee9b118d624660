"""The flags that every converter shares: how the work is done, not what is converted."""

from absl import flags

from tfrecords_tools import worker

ON_ERROR = ("fail", "skip")


def define_flags() -> None:
    """Defines `--num_shards`, `--workers` and `--on_error`."""
    flags.DEFINE_integer("num_shards", None, "Files per split; default: about 1000 images a file.")
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes that read the images; default: one a core, but at most one for each "
        f"{worker.WORTH_A_PROCESS} images. Never more than images.",
    )
    flags.DEFINE_enum(
        "on_error",
        "fail",
        list(ON_ERROR),
        "Bad input: fail (all of it is named, nothing is converted) or skip (what is bad is left "
        "out and named, also in the manifest).",
    )


def from_flags(values: flags.FlagValues) -> dict:
    """The shared flags as keyword arguments of `writer.convert`."""
    return {
        "num_shards": values.num_shards,
        "workers": values.workers,
        "on_error": values.on_error,
    }
