"""The steps of the demo, and the experiment that it trains."""

import shutil
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from kseg import files
from kseg.demo import scenes as demo_scenes
from kseg.demo.baseline import score_nearest_mean_colour
from kseg.errors import UserError
from kseg.evaluate import evaluate, table
from kseg.export import export
from kseg.formats.saved_model import ENCODED_SIGNATURE
from kseg.predict.predict_images import predict, save_sheet
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.train import train
from tfrecords_tools import build_voc, check_records, summary

# A recipe for minutes on two cores, not that of a paper.
RECIPE = Experiment(
    backbone="mobilenet_v2",
    backbone_weights="none",
    context="ksac",
    # A 97x97 crop has a 7x7 feature map at output stride 16: larger rates would only see padding.
    dilation_rates=(1, 2, 3),
    output_stride=16,
    decoder_separable=True,  # as in the official code; a fourth of the multiply-adds
    crop_size=(97, 97),
    min_scale=1.0,  # all scenes have the same scale
    max_scale=1.0,
    batch_size=8,
    epochs=6,
    learning_rate=0.2,
    warm_up_steps=20,
    weight_decay=4e-5,
    batch_norm_momentum=0.95,  # the moving statistics must follow within tens of steps
)
SHEET_ROWS = 8
_MARKER = ".kseg_demo"  # marks the folder of a demo, which the next demo may empty
_PARTS = ("scenes", "records", "model", "predictions", "export")


class _Steps:
    """Prints the number and the name of each step when it begins, and its seconds afterwards."""

    def __init__(self, total: int):
        self._total, self._number, self._begun, self._last = total, 0, time.monotonic(), None

    def __call__(self, text: str) -> None:
        self.close()
        self._number += 1
        self._last = time.monotonic()
        print(f"\n[{self._number}/{self._total}] {text}", flush=True)

    def close(self) -> None:
        if self._last is not None:
            print(f"      {time.monotonic() - self._last:.0f} s", flush=True)

    def minutes(self) -> float:
        return (time.monotonic() - self._begun) / 60


def demo(
    output_dir: str | Path,
    *,
    train_scenes: int = 720,
    val_scenes: int = 48,
    recipe: Experiment = RECIPE,
) -> int:
    """Draws scenes, converts them, and trains, evaluates, applies and exports a network.

    Args:
        output_dir: Folder of the demo: new, empty, or that of an earlier demo, which is replaced.
        train_scenes: Number of scenes to train on.
        val_scenes: Number of held-out scenes.
        recipe: The experiment; its folders and splits are replaced.

    Returns:
        Exit status: 0, or that of a training that was interrupted.

    Raises:
        UserError: The folder holds other things, or the recipe does not fit the data.
    """
    root = Path(output_dir)
    scenes, records, model_dir, predictions, export_dir = (root / part for part in _PARTS)
    experiment = recipe.replace(
        data_dir=str(records),
        model_dir=str(model_dir),
        train_split=("train",),
        mixture_weights=(),
        val_split="val",
    )
    _prepare(root)
    step = _Steps(7)

    step(f"Drawing {train_scenes} training scenes and {val_scenes} held-out scenes -> {scenes}")
    demo_scenes.write_scenes(scenes, train=train_scenes, val=val_scenes)

    step(f"Converting them like any data set in VOC's layout and checking the records -> {records}")
    manifests = build_voc.build(scenes, records, label_set=demo_scenes.SCENES)
    print(summary.report(manifests, records))
    problems = [problem for split in check_records.check(records) for problem in split.problems]
    if problems:
        raise UserError("the records differ from what was written:\n  " + "\n  ".join(problems))

    step(
        f"Training {experiment.context or experiment.model} on {experiment.backbone} from "
        f"{_initial_weights(experiment)} -> {model_dir}"
    )
    print(f"watch it with: tensorboard --logdir {root}")
    status = train(experiment)
    if status:
        flagfile = RunFolder(model_dir).experiment_file
        print(
            "The demo was interrupted and would begin again from the start. To continue only the "
            f"training: python -m kseg.train --flagfile={flagfile}"
        )
        return status

    step("Evaluating the best checkpoint on the held-out scenes")
    run = RunFolder(model_dir)
    scores = evaluate(run, records, experiment.val_split)
    print(table(run.label_set, scores))

    step("Evaluating a nearest-mean-colour classifier on the same scenes")
    baseline = score_nearest_mean_colour(records, experiment.train_split[0], experiment.val_split)
    print(table(run.label_set, baseline))

    step(f"Drawing the predictions for the held-out scenes -> {predictions}")
    names = demo_scenes.scene_names(scenes, "val")
    images = {name: scenes / "JPEGImages" / f"{name}.jpg" for name in names}
    model = run.load_model()
    failures = predict(model, run.label_set, images, predictions, sheet_rows=0)
    if failures:
        raise UserError("held-out scenes could not be read:\n  " + "\n  ".join(failures))
    sheet = root / "contact_sheet.png"
    _save_sheet(sheet, scenes, predictions, names[:SHEET_ROWS])

    step(f"Exporting a SavedModel -> {export_dir}")
    version = export(model, run.label_set, export_dir)
    fraction = _differing_pixels(version, images, predictions)
    print(f"for the JPEG files it returns the predictions, except for {fraction:.6%} of the pixels")
    step.close()

    print(
        f"\nDone in {step.minutes():.1f} minutes."
        f"\nmIoU on {val_scenes} held-out scenes: {scores.miou:.3f}"
        f"\nnearest mean colour, same scenes: {baseline.miou:.3f}"
        f"\nimage, label, prediction:  {sheet}"
        f"\nTensorBoard logs:          {run.logs}  (tensorboard --logdir {root})"
        f"\nexport:                    {version}"
    )
    return 0


def _initial_weights(experiment: Experiment) -> str:
    """Returns what the training starts from, as words of a sentence."""
    if experiment.init_from:
        return f"the weights of {experiment.init_from}"
    if experiment.backbone_weights in ("", "none"):
        return "random weights"
    return f"--backbone_weights={experiment.backbone_weights}"


def _prepare(root: Path) -> None:
    """Empties the folder of an earlier demo; refuses to change any other."""
    if root.exists() and not root.is_dir():
        raise UserError(f"`--output_dir` must be a folder. Received the file: {root}")
    if root.is_dir() and any(root.iterdir()) and not (root / _MARKER).is_file():
        raise UserError(
            "`--output_dir` must be new, empty or the folder of an earlier demo. "
            f"Received: {root}, which holds other things"
        )
    files.write_text(root / _MARKER, "The next demo empties this folder.\n")
    for part in _PARTS:
        shutil.rmtree(root / part, ignore_errors=True)
    (root / "contact_sheet.png").unlink(missing_ok=True)


def _save_sheet(path: Path, scenes: Path, predictions: Path, names: list[str]) -> None:
    """Shows images, labels and predictions side by side, as they are on disk."""
    rows = []
    for name in names:
        paths = (
            scenes / "JPEGImages" / f"{name}.jpg",
            scenes / "SegmentationClass" / f"{name}.png",
            predictions / "labels" / f"{name}.png",
        )
        rows.append([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    save_sheet(path, rows, demo_scenes.SCENES, ("label", "prediction"))


def _differing_pixels(export_dir: Path, images: dict[str, Path], predictions: Path) -> float:
    """Classifies the image files by the export; returns the fraction of pixels that differ."""
    classify = tf.saved_model.load(str(export_dir)).signatures[ENCODED_SIGNATURE]
    fractions = []
    for name, path in images.items():
        classes = classify(encoded=tf.constant([path.read_bytes()]))["classes"][0].numpy()
        with Image.open(predictions / "labels" / f"{name}.png") as picture:
            fractions.append((classes != np.asarray(picture)).mean())
    return float(np.mean(fractions))
