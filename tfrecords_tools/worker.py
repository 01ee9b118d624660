"""The processes that read and check samples, side by side and without TensorFlow.

The results are in the order of the samples, whatever the number of processes, and only a few
samples are processed at a time, so that memory does not grow with the data set. A worker needs
NumPy, Pillow and one image: 50 MB, plus 4 bytes per pixel of a large JPEG, 5 with a mask in
colours, and up to 8 for an image that has to be converted. Only the main program decodes
them with TensorFlow as well (see `decoding`), serialises and writes, in 0.7 GB.
"""

import collections
import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from typing import Any

from kseg.data.checked_images import DEFAULT_RULES, ImageRules
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from tfrecords_tools import inputs

# Starting a process takes about as long as preparing this many photographs.
WORTH_A_PROCESS = 16
# Samples in progress per process: one being read, and others so that it never waits.
_IN_PROGRESS = 4

Result = tuple[inputs.Prepared | None, list[str]]

_prepare_sample: Callable[[inputs.Sample], Result] | None = None


@contextlib.contextmanager
def preparer(
    label_set: LabelSet,
    read_label: inputs.ReadLabel,
    workers: int,
    rules: ImageRules = DEFAULT_RULES,
) -> Iterator[Callable[[Iterable[inputs.Sample]], Iterator[Result]]]:
    """Yields a function from samples to their results, in order; see `inputs.prepare`.

    Args:
        label_set: The classes that the labels may hold.
        read_label: Reads one label. With several workers it must be a function of a module, or a
            `functools.partial` of one.
        workers: Number of processes; 1 is this process.
        rules: What happens to images that can be read in several ways.

    Raises:
        UserError: If a process dies while the results are computed.
    """
    if workers == 1:
        yield functools.partial(map, functools.partial(_prepare, label_set, read_label, rules))
        return
    # Spawned, not forked: TensorFlow's threads do not survive a fork, and a new process is small.
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start, (label_set, read_label, rules)
    )
    try:
        yield functools.partial(in_order, executor, _IN_PROGRESS * workers, _prepare_in_worker)
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} worker processes died, perhaps because memory ran out; fewer "
            "--workers need less. The same command continues with the shards that were finished"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def count(workers: int | None, samples: int) -> int:
    """Returns the number of processes to use.

    Args:
        workers: What was asked for. None stands for one per CPU core, but at most one for every
            `WORTH_A_PROCESS` samples.
        samples: Number of samples. There are never more processes.

    Raises:
        UserError: If `workers` is less than 1.
    """
    if workers is None:
        # This program may not be allowed to use all cores; only Linux knows.
        cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return max(1, min(len(cores), samples // WORTH_A_PROCESS))
    if workers < 1:
        raise UserError(f"`workers` must be at least 1. Received: {workers}")
    return max(1, min(workers, samples))


def in_order(
    executor: Executor, limit: int, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Yields the results of a function in the order of the items, with few of them in progress."""
    waiting = collections.deque()
    items = iter(items)
    while True:
        for item in itertools.islice(items, limit - len(waiting)):
            waiting.append(executor.submit(function, item))
        if not waiting:
            return
        yield waiting.popleft().result()


def _prepare(
    label_set: LabelSet, read_label: inputs.ReadLabel, rules: ImageRules, sample: inputs.Sample
) -> Result:
    try:
        prepared, problems = inputs.prepare(sample, label_set, read_label, rules)
    except Exception as error:
        error.add_note(f"while converting {sample.image}")
        raise
    return prepared, [str(problem) for problem in problems]


def _prepare_in_worker(sample: inputs.Sample) -> Result:
    return _prepare_sample(sample)


def _start(label_set: LabelSet, read_label: inputs.ReadLabel, rules: ImageRules) -> None:
    """Initialises a worker with what is the same for all samples, so that it is sent only once."""
    global _prepare_sample
    _prepare_sample = functools.partial(_prepare, label_set, read_label, rules)
    # Ctrl-C reaches every process of a terminal, but the main program decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # If the main program is killed, its workers would otherwise wait forever.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
