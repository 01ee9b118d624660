"""The steps of the demonstration."""

import shutil
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from kseg import files
from kseg.demo import scenes as demo_scenes
from kseg.demo.baseline import score_nearest_mean_colour
from kseg.errors import UserError
from kseg.evaluate import evaluate, table
from kseg.export import export
from kseg.formats.saved_model import ENCODED_SIGNATURE
from kseg.predict.predict_images import CELL_SIZE, predict
from kseg.runs.experiment_flags import from_flagfile
from kseg.runs.folder import RunFolder
from kseg.train import train
from kseg.visualization import image_files, sheets
from tfrecords_tools import build_voc, check_records, summary

RECIPE = Path(__file__).resolve().parent.parent.parent / "experiments" / "demo.flags"
SHEET_ROWS = 8
_MARK = ".kseg_demo"  # Says that a folder is a demo's, to be emptied by the next one.
_PARTS = ("scenes", "records", "model", "predictions", "export")


class _Steps:
    """Prints the number, the name and the seconds of each step."""

    def __init__(self, total: int):
        self._total, self._done, self._begun, self._last = total, 0, time.monotonic(), None

    def __call__(self, text: str) -> None:
        self.close()
        self._done += 1
        self._last = time.monotonic()
        print(f"\n[{self._done}/{self._total}] {text}", flush=True)

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
    recipe: str | Path = RECIPE,
) -> int:
    """Runs the whole job in a folder.

    Args:
        output_dir: Folder of the demo: new, empty, or that of an earlier demo, which it replaces.
        train_scenes: Number of scenes to train on.
        val_scenes: Number of held-out scenes.
        recipe: Flagfile of the experiment.

    Returns:
        Exit status: 0, or that of a training that was stopped.

    Raises:
        UserError: The folder holds other things, or the recipe does not fit.
    """
    root = Path(output_dir)
    scenes, records, model_dir, predictions, export_dir = (root / part for part in _PARTS)
    experiment = from_flagfile(recipe).replace(data_dir=str(records), model_dir=str(model_dir))
    _prepare(root)
    step = _Steps(7)

    step(f"Drawing {train_scenes} scenes to train on and {val_scenes} held-out ones -> {scenes}")
    demo_scenes.write_scenes(scenes, train=train_scenes, val=val_scenes, progress=_progress)

    step(f"Converting them as any data set in VOC's layout, and checking the records -> {records}")
    manifests = build_voc.build(scenes, records, label_set=demo_scenes.SCENES)
    print(summary.report(manifests, records))
    problems = [problem for one in check_records.check(records) for problem in one.problems]
    if problems:
        raise UserError("the records are not as they were written:\n  " + "\n  ".join(problems))

    step(f"Training from random weights as {Path(recipe).name} says -> {model_dir}")
    print(f"watch it with: tensorboard --logdir {root}")
    status = train(experiment)
    if status:
        flagfile = RunFolder(model_dir).experiment_file
        print(
            "The demo was stopped and would begin anew. Only to train on: "
            f"python -m kseg.train --flagfile={flagfile}"
        )
        return status

    step("Measuring the best checkpoint on the held-out scenes")
    run = RunFolder(model_dir)
    figures = evaluate(run, records, experiment.val_split)
    print(table(run.label_set, figures))

    step("Measuring a nearest-mean-colour classifier on the same scenes")
    baseline = score_nearest_mean_colour(records, experiment.train_split[0], experiment.val_split)
    print(table(run.label_set, baseline))

    step(f"Drawing the predictions for the held-out scenes -> {predictions}")
    held_out = demo_scenes.scene_names(scenes, "val")
    images = {name: scenes / "JPEGImages" / f"{name}.jpg" for name in held_out}
    model = run.load_model()
    failures = predict(model, run.label_set, images, predictions, sheet_rows=0)
    if failures:
        raise UserError("held-out scenes could not be read:\n  " + "\n  ".join(failures))
    sheet = root / "contact_sheet.png"
    _save_sheet(sheet, scenes, predictions, held_out[:SHEET_ROWS])

    step(f"Exporting a SavedModel -> {export_dir}")
    version = export(model, run.label_set, export_dir)
    share = _differing_pixels(version, images, predictions)
    print(f"it answers JPEG files as the pictures show, but for {share:.6%} of the pixels")
    step.close()

    print(
        f"\nDone in {step.minutes():.1f} minutes."
        f"\nmIoU on {val_scenes} held-out scenes: {figures.miou:.3f}"
        f"\nnearest mean colour, same scenes: {baseline.miou:.3f}"
        f"\nimage, label, prediction:  {sheet}"
        f"\nTensorBoard logs:          {run.logs}  (tensorboard --logdir {root})"
        f"\nexport:                    {version}"
    )
    return 0


def _prepare(root: Path) -> None:
    """Empties the folder of an earlier demo; refuses to touch any other."""
    if root.exists() and not root.is_dir():
        raise UserError(f"`--output_dir` must be a folder. {root} is a file")
    if root.is_dir() and any(root.iterdir()) and not (root / _MARK).is_file():
        raise UserError(
            "`--output_dir` must be new, empty or the folder of an earlier demo. "
            f"{root} holds other things"
        )
    files.write_text(root / _MARK, "The next demo empties this folder.\n")
    for part in _PARTS:
        shutil.rmtree(root / part, ignore_errors=True)
    (root / "contact_sheet.png").unlink(missing_ok=True)


def _progress(names):
    return tqdm(names, desc="draw", unit="scene")


def _save_sheet(path: Path, scenes: Path, predictions: Path, names: list[str]) -> None:
    """Puts images, labels and predictions side by side, as they lie on the disk."""
    rows = []
    for name in names:
        found = (
            scenes / "JPEGImages" / f"{name}.jpg",
            scenes / "SegmentationClass" / f"{name}.png",
            predictions / "labels" / f"{name}.png",
        )
        rows.append([np.asarray(Image.open(one).convert("RGB")) for one in found])
    sheet = sheets.contact_sheet(
        rows,
        ("image", "label", "prediction"),
        names=demo_scenes.SCENES.names,
        colours=demo_scenes.SCENES.colours,
        cell_size=CELL_SIZE,
    )
    image_files.save_picture(path, sheet)


def _differing_pixels(export_dir: Path, images: dict[str, Path], predictions: Path) -> float:
    """Asks the export for the scenes as files; returns the share of pixels unlike the pictures."""
    classify = tf.saved_model.load(str(export_dir)).signatures[ENCODED_SIGNATURE]
    shares = []
    for name, path in images.items():
        answer = classify(encoded=tf.constant([path.read_bytes()]))["classes"][0].numpy()
        with Image.open(predictions / "labels" / f"{name}.png") as picture:
            shares.append((answer != np.asarray(picture)).mean())
    return float(np.mean(shares))
