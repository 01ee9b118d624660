"""Measures a trained run on a split: IoU per class, mIoU, accuracies, confusion matrix.

python -m kseg.evaluate --model_dir=runs/X --data_dir=DIR --split=val

The scores are printed and written to `eval.json`, `eval.csv` and `confusion.png`. In the CSV file
the scores over all classes follow the classes, in rows without an id: the column `class` has the
name and the column `iou` the value. `eval.json` names the measured checkpoint and its step.

`--worst=20` also writes the scores of every image to `images.csv`, and draws the 20 images with the
lowest mean IoU in `worst.png`: image, label, prediction and their difference. `--predictions`
writes `predictions.npz`, see `kseg.inference.image_predictions`.

How the papers evaluate is set by flags; see `kseg.inference.config.InferenceConfig`:

    KSAC, DeepLab     --eval_size=513, --scales=0.5,0.75,1.0,1.25,1.5,1.75 --flip
    LKSPP             --scales=1.75,2.0,2.25 --flip
    LKSPP, Table 2    --eval_dilation_rates=24,28,32 (of its ASPP; LKSPP itself has no rates)
    D-LinkNet         --tta=dlinknet
    GCN, Cityscapes   --window_size=1024 --window_stride=342
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags

from kseg import cli, files
from kseg.data import damage
from kseg.data.datasets import LabelSet
from kseg.data.manifests import read_manifest
from kseg.data.pipeline import eval_dataset
from kseg.errors import UserError
from kseg.inference import config as configs
from kseg.inference.backend import prepare_backend
from kseg.inference.config import InferenceConfig
from kseg.inference.evaluator import Evaluator
from kseg.inference.frozen import for_inference
from kseg.inference.image_predictions import PredictionsWriter
from kseg.inference.image_scores import ImageTable, MeasuredImage, measured_images
from kseg.inference.report import check_classes, csv_text, mean_over, report, table
from kseg.recipe.metrics import Scores
from kseg.runs.folder import RunFolder
from kseg.visualization import confusion_matrix, worst_sheet

BOUNDARY_WIDTH = 7  # GCN, Table 5
# Files that are made of single images -> the flag that asks for them.
_OF_IMAGES = {"images.csv": "worst", "worst.png": "worst", "predictions.npz": "predictions"}
LESS_MEMORY = (
    "Less is needed with `--batch_size=1`, smaller `--scales`, or `--window_size` for large images"
)


def evaluate(
    run: RunFolder,
    data_dir: str,
    split: str,
    *,
    checkpoint: str = "best",
    config: InferenceConfig | None = None,
    batch_size: int = 1,
    boundary_width: int = 0,
    on_image: Callable[[MeasuredImage], None] | None = None,
) -> Scores:
    """Measures a run, without writing or printing anything.

    Args:
        run: Folder of the run.
        data_dir: Folder of the shards.
        split: Split to measure.
        checkpoint: `best`, `newest` or a checkpoint file.
        config: The views of an image and how they are averaged. Defaults to a single view of the
            whole image.
        batch_size: Largest number of images in a batch. Only images of one size share a batch, so
            the scores do not depend on it.
        boundary_width: See `kseg.inference.evaluator.Evaluator`.
        on_image: Function that is called with each image after it was measured. With a
            `batch_size` above 1 the images of one size come together, and not in the order of the
            records.

    Raises:
        UserError: There is no run or no data, the data have other classes than the run, or the
            config does not fit them.
    """
    config = config or InferenceConfig()
    manifest = read_manifest(data_dir, split)
    manifest.require_labels(data_dir)
    run.check_data(manifest, f"{split!r} of {data_dir}")
    model = run.load_model(checkpoint, config.applied_to(run.experiment))
    network = for_inference(model, config)
    evaluator = Evaluator(network, run.label_set, config, boundary_width=boundary_width)

    def on_batch(*batch):
        for image in measured_images(manifest, *batch):
            on_image(image)

    with damage.reported(data_dir, (split,)):
        return evaluator(
            eval_dataset(data_dir, split, batch_size, with_records=on_image is not None),
            manifest.num_examples,
            on_batch=on_batch if on_image else None,
        )


def find_checkpoint(run: RunFolder, which: str) -> tuple[str, Path, int]:
    """Returns the name, the file and the step of the checkpoint that a flag stands for.

    Args:
        run: Folder of the run.
        which: `best`, `newest` or a checkpoint file.

    Returns:
        The name is `which`, or `newest` if there is no best checkpoint.

    Raises:
        UserError: There is no checkpoint, or it is damaged.
    """
    position, path = run.checkpoints.read_position(which)
    name = "newest" if which == "best" and path != run.checkpoints.best else which
    return name, path, position.step


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of this program."""
    into = {"flag_values": values}
    flags.DEFINE_string("model_dir", "", "Folder of the run to measure.", **into)
    flags.DEFINE_string(
        "data_dir", "", "Folder of the shards. Empty: that of the training.", **into
    )
    flags.DEFINE_string("split", "val", "Split to measure.", **into)
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a checkpoint file.", **into)
    flags.DEFINE_list(
        "mean_over", [], "Names of classes whose mean IoU is printed as well.", **into
    )
    flags.DEFINE_string(
        "report",
        "",
        "File for the scores, .json; the other files are written beside it. Empty: eval.json in "
        "the folder of the run.",
        **into,
    )
    flags.DEFINE_integer(
        "worst",
        0,
        "Images in worst.png, those with the lowest mean IoU; the scores of all images are written "
        "to images.csv. 0: neither is written.",
        0,
        worst_sheet.MAX_IMAGES,
        **into,
    )
    flags.DEFINE_bool(
        "predictions",
        False,
        "Write the predicted classes and the pixel counts of every image to predictions.npz.",
        **into,
    )
    flags.DEFINE_integer(
        "batch_size",
        1,
        "Largest number of images in a batch, which all have one size.",
        1,
        **into,
    )
    flags.DEFINE_integer(
        "boundary_width",
        BOUNDARY_WIDTH,
        "Pixels on either side of a border on which boundary accuracy is measured. 0: it is not.",
        0,
        **into,
    )
    cli.define_alias("classes", "mean_over", values)
    cli.define_alias("output", "report", values)
    configs.define_flags(values)


def main(values: flags.FlagValues) -> None:
    """Measures one run."""
    cli.require(values, "model_dir", "split")
    prepare_backend()
    config = configs.from_flags(values)
    run = RunFolder(values.model_dir)
    output = Path(values.report or run.eval_file)
    if output.suffix != ".json":
        raise UserError(f"`--report` must be the path of a .json file. Received: {output}")
    data_dir = run.data_dir(values.data_dir)
    check_classes(run.label_set, values.mean_over)
    checkpoint, path, _ = find_checkpoint(run, values.checkpoint)
    of_images = [name for name, flag in _OF_IMAGES.items() if values[flag].value]
    outputs = [output, output.with_suffix(".csv"), _beside(output, "confusion.png")]
    outputs += [_beside(output, name) for name in of_images]
    _refuse_own_files(run, outputs)
    with cli.writing({"report": output}, "Nothing was written."), contextlib.ExitStack() as stack:
        # They are put in place in reverse order: the JSON file, which other programs read, last.
        partials = [stack.enter_context(files.atomic_path(file)) for file in outputs]
        for partial in partials:
            partial.touch()  # So a folder that cannot be written is noticed before the evaluation.
        paths = dict(zip(of_images, partials[3:], strict=True))
        with _image_files(run.label_set, values.worst, paths) as on_image:
            scores = evaluate(
                run,
                data_dir,
                values.split,
                checkpoint=str(path),
                config=config,
                batch_size=values.batch_size,
                boundary_width=values.boundary_width,
                on_image=on_image,
            )
        content = {
            "split": values.split,
            "data_dir": data_dir,
            "checkpoint": checkpoint,
            "step": run.loaded_step,
            "protocol": str(config),  # The key that files of earlier versions have.
        }
        if values.boundary_width:
            content["boundary_width"] = values.boundary_width
        content |= _printed(run.label_set, scores, values.mean_over)
        partials[0].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partials[1].write_text(csv_text(run.label_set, scores), encoding="utf-8")
        confusion_matrix.draw(scores.matrix, run.label_set.names).save(partials[2])
    print(f"inference: {config}\nwritten: {', '.join(map(str, outputs))}")
    others = [_beside(output, name) for name in _OF_IMAGES if name not in of_images]
    if kept := [str(file) for file in others if file.is_file()]:
        print(f"note: left there by an earlier evaluation: {', '.join(kept)}")


def _refuse_own_files(run: RunFolder, outputs: Sequence[Path]) -> None:
    """Raises `UserError` if an output would replace a file of the training."""
    own = {file.resolve() for file in run.own_files}
    if taken := [file for file in outputs if file.resolve() in own]:
        raise UserError(
            "`--report` must not name files beside it that belong to the training. "
            f"Received: {outputs[0]}, beside which {taken[0].name} would be replaced"
        )


def _printed(label_set: LabelSet, scores: Scores, classes: Sequence[str]) -> dict:
    """Prints the table of the scores and returns them for the JSON file."""
    print(table(label_set, scores))
    content = report(label_set, scores)
    if classes:
        mean, line = mean_over(label_set, scores, classes)
        content["mean_over"] = {"classes": classes, "iou": mean}
        print(line)
    return content


@contextlib.contextmanager
def _image_files(
    label_set: LabelSet, count: int, paths: Mapping[str, Path]
) -> Iterator[Callable[[MeasuredImage], None] | None]:
    """Writes the files that are made of single images.

    Args:
        label_set: The classes.
        count: Number of images on the sheet of the worst.
        paths: Their final names -> where they are written.

    Yields:
        Function to be called with each image, or None if there is no such file.
    """
    with contextlib.ExitStack() as stack:
        functions = []
        if "worst.png" in paths:
            worst = _worst_files(label_set, count, paths["images.csv"], paths["worst.png"])
            functions.append(stack.enter_context(worst))
        if "predictions.npz" in paths:
            writer = stack.enter_context(PredictionsWriter(paths["predictions.npz"]))
            functions.append(writer.add)

        def add(measured):
            for function in functions:
                function(measured)

        yield add if functions else None


@contextlib.contextmanager
def _worst_files(
    label_set: LabelSet, count: int, table_file: Path, picture: Path
) -> Iterator[Callable[[MeasuredImage], None]]:
    """Writes the CSV table of the images and the sheet of the worst."""
    sheet = worst_sheet.WorstSheet(label_set, count)
    with open(table_file, "w", newline="", encoding="utf-8") as file:
        rows = ImageTable(file, label_set)

        def add(measured):
            rows.add(measured)
            if measured.scores:
                sheet.add(
                    measured.name,
                    measured.scores.miou,
                    measured.image,
                    measured.labels,
                    measured.prediction,
                )

        yield add
    sheet.picture().save(picture)


def _beside(output: Path, name: str) -> Path:
    """Returns the path of a file beside the JSON file, with its name unless that is the default."""
    return output.with_name(name if output.name == "eval.json" else f"{output.stem}_{name}")


if __name__ == "__main__":
    cli.run(main, define_flags, less_memory=LESS_MEMORY)
