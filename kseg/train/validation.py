"""Validation during training: scores and pictures of the validation split."""

import math
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from kseg.data.manifests import Manifest
from kseg.data.pipeline import eval_dataset
from kseg.inference.evaluator import Evaluator
from kseg.inference.scorer import classifier
from kseg.models import Segmenter
from kseg.runs.experiment import Experiment
from kseg.runs.process_group import ProcessGroup
from kseg.train.run_log import RunLog
from kseg.visualization import label_maps, sheets

PICTURES = 4  # Number of validation images drawn after a validation.


class Validation:
    """Measures the network on the validation split and draws its first images.

    Each process measures its part of the images; the main process draws.

    Args:
        experiment: Names the data.
        manifest: Manifest of the validation split.
        model: The network that is trained.
        process_group: The processes that train together.
    """

    def __init__(
        self,
        experiment: Experiment,
        manifest: Manifest,
        model: Segmenter,
        process_group: ProcessGroup,
    ):
        self._process_group = process_group
        self._total = -(-manifest.num_examples // process_group.size)
        self._label_set = manifest.label_set()
        self._dataset = eval_dataset(
            experiment.data_dir,
            experiment.val_split,
            num_workers=process_group.size,
            worker_index=process_group.index,
        )
        network = model.without_auxiliary()
        self._evaluator = Evaluator(network, self._label_set)
        self._classify = classifier(network)

    def measure(
        self, row: dict, log: RunLog, stops: Callable[[], bool] = lambda: False
    ) -> float | None:
        """Adds the scores to the row of an epoch, logs it, and returns the mIoU.

        Args:
            row: The row.
            log: The log of the run.
            stops: Function that says after each image whether the validation is given up, which
                then returns None. Several processes, which must stop together, do not ask it.
        """
        scores = self._evaluator(
            self._dataset,
            self._total,
            shows_progress=self._process_group.is_main,
            all_reduce_sum=self._process_group.all_reduce_sum,
            stops=stops if self._process_group.size == 1 else lambda: False,
        )
        if scores is None:
            return None
        if not self._process_group.is_main:
            return scores.miou
        row |= {"val_miou": scores.miou, "val_pixel_accuracy": float(scores.pixel_accuracy)}
        named = zip(self._label_set.names, scores.iou, strict=True)
        iou = {name: float(value) for name, value in named if not math.isnan(value)}
        log.epoch(row, iou, self._draw())
        tqdm.write(  # Above the progress bar of the run.
            f"epoch {row['epoch']}: val mIoU {scores.miou:.4f}, "
            f"pixel accuracy {scores.pixel_accuracy:.4f}"
        )
        return scores.miou

    def _draw(self) -> np.ndarray:
        rows = []
        for images, labels in self._dataset.take(PICTURES).as_numpy_iterator():
            predicted = self._classify(images[:1])[0].numpy()
            colours = self._label_set.colours
            rows.append(
                (
                    images[0],
                    label_maps.colourise(labels[0], colours),
                    label_maps.colourise(predicted, colours),
                )
            )
        return np.asarray(sheets.contact_sheet(rows, ("image", "label", "prediction")))
