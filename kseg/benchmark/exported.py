"""Size, time and accuracy of each exported form of a network, on the processor.

Size and time do not depend on the weights, so they are random by default. With `--model_dir` the
network is that of a run, and the mIoU of each form is measured as well.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kseg.benchmark import models, table, timing
from kseg.benchmark.exported_forms import PLAIN, load_all
from kseg.benchmark.runner import Benchmark
from kseg.data import damage
from kseg.data.datasets import LabelSet
from kseg.data.manifests import read_manifest
from kseg.data.pipeline import eval_dataset
from kseg.errors import UserError
from kseg.formats import litert
from kseg.recipe.metrics import ConfusionMatrix, scores
from kseg.runs.folder import RunFolder
from kseg.visualization.progress import progress_bar

SHAPE = (1, 513, 513)
NETWORKS = models.GROUPS["contexts"]
DEFAULT = ("aspp", "ksac")


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    """One exported form. The setting is the network and the size of the image."""

    form: str = table.column("format and precision")
    megabytes: float = table.column("size of all files, 10^6 bytes", ".1f")
    ms: table.Quartiles = table.column(
        "one uint8 image to class ids, median (quartiles), the forms take turns", ".1f"
    )
    ratio: float = table.column("median over that of the first row", ".2f")
    miou: float | None = table.column("of a run, on all images of the split", ".4f")


def measure(
    *,
    repetitions: int,
    only: tuple[str, ...],
    shape: tuple[int, ...],
    model_dir: str = "",
    data_dir: str = "",
    split: str = "val",
) -> Iterator[Row]:
    """Yields the rows of each network in every form.

    Forms whose extra is not installed are named and left out.

    Args:
        repetitions: How often each form is timed.
        only: Context modules on MobileNetV2, with random weights.
        shape: (1, height, width) of the image.
        model_dir: Folder of a run, whose best checkpoint is measured instead of `only`.
        data_dir: Folder of the shards to evaluate a run on; empty: those of the run.
        split: Split to evaluate on. int8 is calibrated on the (first) training split.
    """
    if shape and shape[0] != 1:
        raise UserError(f"`--shape` must be 1,height,width. Received: {shape}")
    if data_dir and not model_dir:
        raise UserError("`--data_dir` needs `--model_dir`: only the network of a run is evaluated")
    if model_dir and only:
        raise UserError(f"`--model_dir` replaces `--only`. Received: --only={','.join(only)}")
    tf.config.set_visible_devices([], "GPU")  # LiteRT and ONNX do not use it either.
    size = (shape or SHAPE)[1:]
    if not model_dir:
        for name in only or DEFAULT:
            yield from _measure_network(name, models.build(NETWORKS[name]), size, repetitions)
        return
    run = RunFolder(model_dir)
    data_dir = run.data_dir(data_dir)
    run.check_labels(read_manifest(data_dir, split).label_set(), f"{split!r} of {data_dir}")
    with damage.reported(data_dir, (split,)):  # before the exports, which take minutes
        for _, label in eval_dataset(data_dir, split):
            if np.any(np.greater(label.shape[1:], size)):
                raise UserError(
                    f"`--shape` must be at least 1,height,width of every image of {split!r}. "
                    f"Received: {size}, and an image of {tuple(label.shape[1:])}"
                )
    model = run.load_model()
    calibration = litert.calibration_images(
        model, data_dir, run.experiment.train_split[0], size, litert.CALIBRATION_IMAGES
    )
    images = (
        (litert.crop_or_pad(model, image, size), label.numpy())
        for image, label in progress_bar(eval_dataset(data_dir, split), desc="mIoU", leave=False)
    )
    evaluate = functools.partial(_miou, images, run.label_set)
    name = run.path.resolve().name
    yield from _measure_network(name, model, size, repetitions, calibration, evaluate)


def _measure_network(
    name: str,
    model: keras.Model,
    size: tuple[int, int],
    repetitions: int,
    calibration: list[np.ndarray] = (),
    evaluate: Callable[[dict[str, Callable]], dict[str, float]] = lambda calls: {},
) -> Iterator[Row]:
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        # Calibration on noise changes the results but not the time.
        forms = load_all(model, size, calibration or [image], Path(folder))
        calls = {form: call for form, (_, call) in forms.items()}
        times = timing.interleaved_ms(
            {form: functools.partial(call, image) for form, call in calls.items()}, repetitions
        )
        miou = evaluate(calls)
    for form, (num_bytes, _) in forms.items():
        yield Row(
            setting=f"{name}, {size[0]}x{size[1]}",
            dtype="",  # The name of the form says it.
            xla=None,
            form=form,
            megabytes=num_bytes / 1e6,
            ms=times[form],
            ratio=times[form][1] / times[PLAIN][1],
            miou=miou.get(form),
        )


def _miou(
    images: Iterable[tuple[np.ndarray, np.ndarray]],
    label_set: LabelSet,
    calls: dict[str, Callable],
) -> dict[str, float]:
    """The mIoU of each form on images that are padded below and on the right."""
    matrices = {
        form: ConfusionMatrix(label_set.num_classes, label_set.ignore_label) for form in calls
    }
    for image, label in images:
        height, width = label.shape[1:]
        for form, call in calls.items():
            matrices[form].count(label, call(image)[:, :height, :width])
    return {form: scores(matrix.matrix()).miou for form, matrix in matrices.items()}


BENCHMARK = Benchmark(
    row=Row,
    measure=measure,
    choices=tuple(NETWORKS),
    options=("model_dir", "data_dir", "split"),
)
