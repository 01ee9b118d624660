"""Measures a trained run on a split: per-class IoU, mIoU, pixel accuracy.

python -m kseg.evaluate --model_dir=runs/X --data_dir=DIR --split=val
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from kseg import files, program
from kseg.data.datasets import LabelSet
from kseg.data.pipeline import eval_dataset
from kseg.data.records import read_manifest
from kseg.errors import UserError
from kseg.metrics import ConfusionMatrix, Scores, scores
from kseg.run_folder import RunFolder


class Evaluator:
    """Measures one network, as often as wanted, without tracing it anew.

    Args:
        model: Gives logits at the size of its input.
        label_set: The classes of the labels it is measured on.
    """

    def __init__(self, model: keras.Model, label_set: LabelSet):
        self._matrix = ConfusionMatrix(label_set.num_classes, label_set.ignore_label)

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, None, None, 3), tf.uint8),
                tf.TensorSpec((None, None, None), tf.uint8),
            ]
        )
        def count(images, labels):
            logits = model(tf.cast(images, tf.float32), training=False)
            self._matrix.update_state(labels, logits)

        self._count = count

    def __call__(self, dataset: tf.data.Dataset, total: int | None = None) -> Scores:
        """Counts every pixel of the dataset once.

        Args:
            dataset: Batches of uint8 images and labels, as `eval_dataset` gives them.
            total: Number of images, for the progress bar.

        Raises:
            UserError: No pixel is labelled, or one with an id that is no class.
        """
        self._matrix.reset_state()
        with tqdm(
            total=total, desc="evaluate", unit="image", leave=False, mininterval=1
        ) as progress:
            for images, labels in dataset:
                self._count(images, labels)
                progress.update(len(images))
        try:
            return scores(self._matrix.matrix())
        except ValueError as error:
            raise UserError(str(error)) from error


def evaluate(run: RunFolder, data_dir: str, split: str, *, checkpoint: str = "best") -> Scores:
    """Measures a run at single scale, each image whole; writes and prints nothing.

    Args:
        run: Folder of the run.
        data_dir: Folder of the shards.
        split: Split to measure.
        checkpoint: `best`, `newest` or a checkpoint file.

    Raises:
        UserError: No run, no data, or data with other classes than the run was trained on.
    """
    manifest = read_manifest(data_dir, split)
    run.check_labels(manifest.label_set(), f"{split!r} of {data_dir}")
    evaluator = Evaluator(run.load_model(checkpoint), run.label_set)
    return evaluator(eval_dataset(data_dir, split), manifest.num_examples)


def table(label_set: LabelSet, figures: Scores) -> str:
    """The figures as lines of text, one class a line; classes without pixels show n/a."""
    width = max(len(name) for name in (*label_set.names, "pixel accuracy"))
    lines = [f"{'class':<{width}}  {'IoU':>6}  {'pixels':>12}"]
    for name, iou, support in zip(label_set.names, figures.iou, figures.support, strict=True):
        text = "n/a" if math.isnan(iou) else f"{iou:.4f}"
        lines.append(f"{name:<{width}}  {text:>6}  {support:>12,}")
    present = sum(not math.isnan(iou) for iou in figures.iou)
    lines.append(f"{'mIoU':<{width}}  {figures.miou:>6.4f}  over {present} classes present")
    lines.append(f"{'pixel accuracy':<{width}}  {figures.pixel_accuracy:>6.4f}")
    return "\n".join(lines)


def mean_over(label_set: LabelSet, figures: Scores, classes: Sequence[str]) -> float:
    """Mean IoU of the named classes alone.

    Raises:
        UserError: A name is no class, or a class has no labelled pixels.
    """
    unknown = [name for name in classes if name not in label_set.names]
    if unknown:
        raise UserError(
            f"`--classes` must be among {', '.join(label_set.names)}. Received: "
            + ", ".join(unknown)
        )
    chosen = [float(figures.iou[label_set.names.index(name)]) for name in classes]
    if math.isnan(sum(chosen)):
        raise UserError("`--classes` must all have labelled pixels in the split")
    return sum(chosen) / len(chosen)


def report(label_set: LabelSet, figures: Scores) -> dict:
    """The figures as plain values for JSON; None for classes without pixels."""
    return {
        "miou": figures.miou,
        "pixel_accuracy": float(figures.pixel_accuracy),
        "iou": {
            name: None if math.isnan(iou) else float(iou)
            for name, iou in zip(label_set.names, figures.iou, strict=True)
        },
        "pixels": dict(zip(label_set.names, map(int, figures.support), strict=True)),
    }


def define_flags() -> None:
    flags.DEFINE_string("model_dir", "", "Folder of the run to measure.")
    flags.DEFINE_string("data_dir", "", "Folder of the shards; empty: the run's own.")
    flags.DEFINE_string("split", "val", "Split to measure.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a checkpoint file.")
    flags.DEFINE_list("classes", [], "Names of classes whose mean IoU is given besides.")
    flags.DEFINE_string("output", "", "Where the figures go; empty: eval.json in the run's folder.")


def main(values: flags.FlagValues) -> None:
    program.require(values, "model_dir", "split")
    run = RunFolder(values.model_dir)
    data_dir = values.data_dir or run.experiment.data_dir
    figures = evaluate(run, data_dir, values.split, checkpoint=values.checkpoint)
    print(table(run.label_set, figures))
    content = report(run.label_set, figures)
    if values.classes:
        mean = mean_over(run.label_set, figures, values.classes)
        content["mean_over"] = {"classes": values.classes, "iou": mean}
        print(f"mean IoU over {', '.join(values.classes)}: {mean:.4f}")
    protocol = {
        "split": values.split,
        "data_dir": data_dir,
        "checkpoint": values.checkpoint,
        "protocol": "single scale, whole images",
    }
    output = Path(values.output or run.eval_file)
    files.write_text(output, json.dumps(protocol | content, indent=1) + "\n")
    print(f"written: {output}")


if __name__ == "__main__":
    program.run(main, define_flags)
