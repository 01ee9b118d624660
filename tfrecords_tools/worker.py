"""The processes that read and check samples, side by side and without TensorFlow.

What comes back has the order of what went in, whatever the number of processes, and only a few
samples are under way at a time: memory does not grow with the data set. A worker needs NumPy,
Pillow and one image: 50 MB and 4 bytes a pixel of a large JPEG, 5 with a mask in colours, up to 8
of an image that has to be converted. The program alone serialises and writes, with TensorFlow's
0.7 GB.
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
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from tfrecords_tools import inputs

# Starting a process costs about as much as preparing this many photographs.
WORTH_A_PROCESS = 16
# Samples under way for each process: one in hand, the others so that it never waits.
_AHEAD = 4

Result = tuple[inputs.Prepared | None, list[str]]

_work: Callable[[inputs.Sample], Result] | None = None


@contextlib.contextmanager
def preparer(
    label_set: LabelSet, read_label: inputs.ReadLabel, workers: int
) -> Iterator[Callable[[Iterable[inputs.Sample]], Iterator[Result]]]:
    """Yields a function from samples to their results, in order; see `inputs.prepare`.

    Args:
        label_set: classes that the labels may hold.
        read_label: reads one label; with several workers it must be a function of a module, or a
            `functools.partial` of one.
        workers: processes; 1 is this one.

    Raises:
        UserError: while results are taken, when a process has died.
    """
    if workers == 1:
        yield functools.partial(map, functools.partial(_prepare, label_set, read_label))
        return
    # Spawned, not forked: TensorFlow's threads do not survive a fork, and a fresh process is small.
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start, (label_set, read_label)
    )
    try:
        yield functools.partial(_in_order, executor, _AHEAD * workers)
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} worker processes died, perhaps for want of memory: fewer --workers "
            "need less. The same command goes on with the shards that were finished"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def count(workers: int | None, samples: int) -> int:
    """Processes to use: what was asked for, else all cores where the work is worth them.

    Raises:
        UserError: fewer than one was asked for.
    """
    if workers is None:
        # Not all cores of the machine may be this program's; only Linux tells.
        mine = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return max(1, min(len(mine), samples // WORTH_A_PROCESS))
    if workers < 1:
        raise UserError(f"`workers` must be at least 1. Received: {workers}")
    return max(1, min(workers, samples))


def _in_order(executor, ahead: int, samples: Iterable[inputs.Sample]) -> Iterator[Result]:
    waiting = collections.deque()
    samples = iter(samples)
    while True:
        for sample in itertools.islice(samples, ahead - len(waiting)):
            waiting.append(executor.submit(_prepare_one, sample))
        if not waiting:
            return
        yield waiting.popleft().result()


def _prepare(label_set: LabelSet, read_label: inputs.ReadLabel, sample: inputs.Sample) -> Result:
    try:
        prepared, problems = inputs.prepare(sample, label_set, read_label)
    except Exception as error:
        error.add_note(f"while {sample.image} was converted")
        raise
    return prepared, [str(problem) for problem in problems]


def _prepare_one(sample: inputs.Sample) -> Result:
    return _work(sample)


def _start(label_set: LabelSet, read_label: inputs.ReadLabel) -> None:
    """Begins a worker's life: what does not change from sample to sample is sent once."""
    global _work
    _work = functools.partial(_prepare, label_set, read_label)
    # Ctrl-C reaches every process of a terminal; the program alone decides what then happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A program killed outright would leave its workers waiting for ever.
    threading.Thread(target=_end_with_program, daemon=True).start()


def _end_with_program() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
