"""Decodes each image with the decoder of training before it is written.

Pillow accepts some damaged JPEGs that TensorFlow refuses. The workers have no TensorFlow, which
would take half a gigabyte in each of them. So the program that writes decodes the images as well,
in as many threads as there are workers. TensorFlow takes about as long as Pillow (3.5 ms for a
photograph of VOC), a small part of what a worker does for an image.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from kseg.data.checked_images import BadInput, ImageRules
from kseg.data.damage import decoder_reason
from kseg.data.datasets import LabelSet
from kseg.data.records import decode_image
from tfrecords_tools import worker
from tfrecords_tools.inputs import ReadLabel, Sample

# Images in progress for each thread.
_IN_PROGRESS = 2


@contextlib.contextmanager
def preparer(
    label_set: LabelSet, read_label: ReadLabel, workers: int, rules: ImageRules
) -> Iterator[Callable[[Iterable[Sample]], Iterator[worker.Result]]]:
    """Yields a function from samples to their results, in order, as `worker.preparer` does.

    An image that TensorFlow cannot decode is a problem of its sample.
    """
    with contextlib.ExitStack() as stack:
        prepare = stack.enter_context(worker.preparer(label_set, read_label, workers, rules))
        decode = map
        if workers > 1:
            threads = stack.enter_context(ThreadPoolExecutor(workers))
            decode = functools.partial(worker.in_order, threads, _IN_PROGRESS * workers)

        def prepare_and_decode(samples: Iterable[Sample]) -> Iterator[worker.Result]:
            samples, again = itertools.tee(samples)
            return decode(_check, zip(again, prepare(samples), strict=True))

        yield prepare_and_decode


def _check(pair: tuple[Sample, worker.Result]) -> worker.Result:
    """Returns the result of a sample, or a problem if TensorFlow cannot decode the image."""
    sample, (prepared, problems) = pair
    if prepared is None:
        return prepared, problems
    try:
        decode_image(tf.constant(prepared.example["image"]))
    except tf.errors.InvalidArgumentError as error:
        reason = (
            f"is damaged: the decoder of training refuses it ({decoder_reason(error)}), though "
            "other programs may show it. Save it again with such a program"
        )
        return None, [str(BadInput(sample.image, reason))]
    return prepared, problems
