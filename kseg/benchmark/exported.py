"""What each exported form of a network weighs, how long it takes for an image, what it loses.

Size and time do not depend on the weights: random ones will do. With `--model_dir` the network is
that of a run, and the mIoU of each form is measured besides.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from kseg.benchmark import models, timing
from kseg.benchmark.exported_forms import PLAIN, load_all
from kseg.data.datasets import LabelSet
from kseg.data.pipeline import eval_dataset
from kseg.data.records import read_manifest
from kseg.errors import UserError
from kseg.formats import litert
from kseg.recipe.metrics import ConfusionMatrix, scores
from kseg.runs.folder import RunFolder

SHAPE = (1, 513, 513)
CALIBRATION_IMAGES = 100  # as kseg.export takes
NETWORKS = models.GROUPS["contexts"]
DEFAULT = ("aspp", "ksac")
_LEGEND = """MB     of all files
ms     one image of uint8 to class ids, median (lower..upper quartile), the forms taking turns
ratio  of the medians over the first row's
mIoU   of a run, on all images of the split, padded below and to the right to the shape"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Network and form.
        megabytes: Size on disk, 10^6 bytes.
        ms: Quartiles (lower, median, upper) of one image.
        ratio: Median over that of the SavedModel that is neither frozen nor folded.
        miou: Of a run's network on a split; None for random weights.
    """

    name: str
    megabytes: float
    ms: tuple[float, float, float]
    ratio: float
    miou: float | None


@dataclasses.dataclass(frozen=True)
class _Photographs:
    """Images of one size, for calibration, and images and labels of one size, to measure on."""

    calibration: list[np.ndarray]
    measured: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
    total: int
    label_set: LabelSet


def run(
    repetitions: int = 9,
    output: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
    model_dir: str = "",
    data_dir: str = "",
    split: str = "val",
) -> list[Row]:
    """Exports networks in every form, prints a table and returns its rows.

    Forms whose extra (`edge`, `onnx`) is not installed are left out, and named.

    Args:
        repetitions: Times that each form is measured, after one that is not.
        output: `.csv` or `.json` file to write the rows to as well; none if empty.
        only: Context modules, on MobileNetV2, with random weights; ASPP and KSAC if empty.
        shape: (1, height, width) of the image; (1, 513, 513) if empty.
        model_dir: Folder of a run, whose best checkpoint is measured in place of `only`.
        data_dir: Folder of the records that a run is measured on; empty: its own.
        split: Split of them. int8 is calibrated on the (first) split of training.

    Raises:
        UserError: A context module is not known, the shape is not as described or smaller than an
            image of the split, or there is no such run or split.
    """
    timing.check_output(output)
    for name in only:
        if name not in NETWORKS:
            names = ", ".join(NETWORKS)
            raise UserError(f"`--only` must hold names of {names}. Received: {name!r}")
    if shape and (len(shape) != 3 or shape[0] != 1):
        raise UserError(f"`--shape` must be 1,height,width. Received: {shape!r}")
    shape = shape or SHAPE
    if not model_dir and data_dir:
        raise UserError("`--data_dir` needs `--model_dir`: random networks are not measured on it")
    if model_dir and only:
        raise UserError(f"`--only` is not taken with `--model_dir`. Received: {','.join(only)}")
    print(_LEGEND)
    rows = []
    if model_dir:
        run_folder = RunFolder(model_dir)
        model = run_folder.load_model()
        photographs = _photographs(run_folder, model, data_dir, split, shape[1:])
        networks = {run_folder.path.resolve().name: lambda: (model, photographs)}
    else:
        networks = {
            name: lambda name=name: (models.build(NETWORKS[name]), None) for name in only or DEFAULT
        }
    for name, build in networks.items():
        found = _measure(*build(), shape, repetitions)
        print(f"\n{name:<32}{'MB':>8}{'ms':>26}{'ratio':>8}{'mIoU':>8}")
        for row in found:
            miou = "-" if row.miou is None else f"{row.miou:.4f}"
            print(
                f"{row.name:<32}{row.megabytes:>8.1f}{timing.spread(row.ms):>26}{row.ratio:>8.2f}"
                f"{miou:>8}"
            )
        rows += [dataclasses.replace(row, name=f"{name}: {row.name}") for row in found]
    if output:
        timing.write(output, rows)
    return rows


def _photographs(
    run: RunFolder, model: keras.Model, data_dir: str, split: str, size: tuple[int, int]
) -> _Photographs:
    data_dir = data_dir or run.experiment.data_dir
    manifest = read_manifest(data_dir, split)
    run.check_labels(manifest.label_set(), f"{split!r} of {data_dir}")

    for _, label in eval_dataset(data_dir, split):  # before the exports, which take minutes
        if np.any(np.greater(label.shape[1:], size)):
            raise UserError(
                f"`--shape` must be at least 1,height,width of every image of {split!r}. "
                f"Received: {size}, and an image of {tuple(label.shape[1:])}"
            )

    def measured():
        for image, label in eval_dataset(data_dir, split):
            yield litert.crop_or_pad(model, image, size), label.numpy()

    calibration = litert.calibration_images(
        model, data_dir, run.experiment.train_split[0], size, CALIBRATION_IMAGES
    )
    return _Photographs(calibration, measured, manifest.num_examples, run.label_set)


def _measure(
    model: keras.Model,
    photographs: _Photographs | None,
    shape: tuple[int, ...],
    repetitions: int,
) -> list[Row]:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    # Noise decides the answers and not the time that they take.
    calibration = photographs.calibration if photographs else [image]
    with tempfile.TemporaryDirectory() as folder:
        forms = load_all(model, shape[1:], calibration, Path(folder))
        calls = {name: functools.partial(call, image) for name, (_, call) in forms.items()}
        times = timing.interleaved_ms(calls, repetitions)
        found = dict.fromkeys(forms)
        if photographs:
            found = _miou({name: call for name, (_, call) in forms.items()}, photographs)
    first = times[PLAIN][1]
    return [
        Row(name, size / 1e6, times[name], times[name][1] / first, found[name])
        for name, (size, _) in forms.items()
    ]


def _miou(calls: dict[str, Callable], photographs: _Photographs) -> dict[str, float]:
    label_set = photographs.label_set
    matrices = {
        name: ConfusionMatrix(label_set.num_classes, label_set.ignore_label) for name in calls
    }
    with tqdm(total=photographs.total, desc="mIoU", unit="image", leave=False) as progress:
        for image, label in photographs.measured():
            height, width = label.shape[1:]
            for name, call in calls.items():
                matrices[name].count(label, call(image)[:, :height, :width])
            progress.update()
    return {name: scores(matrix.matrix()).miou for name, matrix in matrices.items()}
