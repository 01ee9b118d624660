"""Measures a trained run on a split: per-class IoU, mIoU, accuracies, confusion matrix.

python -m kseg.evaluate --model_dir=runs/X --data_dir=DIR --split=val

The figures go to the screen, to `eval.json`, `eval.csv` and `confusion.png`. In the CSV the totals
stand below the classes, in rows without an id: the name of each in the column `class`, its value in
the column `iou`. `eval.json` names the checkpoint that was measured and its step.

How the papers look at an image is a matter of flags; see `kseg.inference.config.Protocol`:

    KSAC, DeepLab     --eval_size=513, --scales=0.5,0.75,1.0,1.25,1.5,1.75 --flip
    LKSPP             --scales=1.75,2.0,2.25 --flip
    LKSPP, Table 2    --eval_dilation_rates=24,28,32 (of its ASPP; LKSPP itself has no rates)
    D-LinkNet         --tta=dlinknet
    GCN, Cityscapes   --window_size=1024 --window_stride=342
"""

import json
from pathlib import Path

import numpy as np
from absl import flags

from kseg import cli, files
from kseg.data.datasets import LabelSet
from kseg.data.pipeline import eval_dataset
from kseg.data.records import read_manifest
from kseg.errors import UserError
from kseg.inference import config as protocols
from kseg.inference.backend import leave_gpus_to_jax
from kseg.inference.config import Protocol
from kseg.inference.evaluator import Evaluator
from kseg.inference.report import csv_text, mean_over, report, table
from kseg.recipe.metrics import Scores
from kseg.runs.folder import RunFolder
from kseg.visualization import confusion_matrix, image_files

BOUNDARY_WIDTH = 7  # GCN, Table 5


def evaluate(
    run: RunFolder,
    data_dir: str,
    split: str,
    *,
    checkpoint: str = "best",
    protocol: Protocol | None = None,
    batch_size: int = 1,
    boundary_width: int = 0,
) -> Scores:
    """Measures a run; writes and prints nothing.

    Args:
        run: Folder of the run.
        data_dir: Folder of the shards.
        split: Split to measure.
        checkpoint: `best`, `newest` or a checkpoint file.
        protocol: How the network looks at an image. By default once, as a whole.
        batch_size: Most images of a batch. Only images of one size share one, so that the figures
            do not depend on it.
        boundary_width: See `Evaluator`.

    Raises:
        UserError: No run, no data, data with other classes than the run was trained on, or a
            protocol that does not fit them.
    """
    protocol = protocol or Protocol()
    manifest = read_manifest(data_dir, split)
    run.check_labels(manifest.label_set(), f"{split!r} of {data_dir}")
    model = run.load_model(checkpoint, protocol.applied_to(run.experiment))
    evaluator = Evaluator(model, run.label_set, protocol, boundary_width=boundary_width)
    return evaluator(eval_dataset(data_dir, split, batch_size), manifest.num_examples)


def find_checkpoint(run: RunFolder, which: str) -> tuple[str, Path, int]:
    """Name, file and step of the checkpoint that `best`, `newest` or a path stands for.

    The name is that which was asked for, but `newest` where there is no best one.

    Raises:
        UserError: There is none, or it is damaged.
    """
    _, path = run.checkpoints.read_weights(which)
    name = "newest" if which == "best" and path != run.checkpoints.best else which
    with np.load(path) as arrays:
        step = json.loads(str(arrays["position"]))["step"]
    return name, path, step


def define_flags() -> None:
    flags.DEFINE_string("model_dir", "", "Folder of the run to measure.")
    flags.DEFINE_string("data_dir", "", "Folder of the shards; empty: the run's own.")
    flags.DEFINE_string("split", "val", "Split to measure.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a checkpoint file.")
    flags.DEFINE_list("classes", [], "Names of classes whose mean IoU is given besides.")
    flags.DEFINE_string(
        "output",
        "",
        "Where the figures go, as JSON; CSV and picture go beside. Empty: the run's folder.",
    )
    flags.DEFINE_integer("batch_size", 1, "Most images of a batch; of equal size only.", 1)
    flags.DEFINE_integer(
        "boundary_width",
        BOUNDARY_WIDTH,
        "Pixels on either side of a border that boundary accuracy is measured on; 0: not measured.",
        0,
    )
    protocols.define_flags()


def main(values: flags.FlagValues) -> None:
    cli.require(values, "model_dir", "split")
    leave_gpus_to_jax()
    protocol = protocols.from_flags(values)
    run = RunFolder(values.model_dir)
    output = Path(values.output or run.eval_file)
    if output.suffix != ".json":
        raise UserError(f"`--output` must be the path of a .json file. Received: {output}")
    data_dir = values.data_dir or run.experiment.data_dir
    checkpoint, path, step = find_checkpoint(run, values.checkpoint)
    figures = evaluate(
        run,
        data_dir,
        values.split,
        checkpoint=str(path),
        protocol=protocol,
        batch_size=values.batch_size,
        boundary_width=values.boundary_width,
    )
    print(table(run.label_set, figures))
    content = {
        "split": values.split,
        "data_dir": data_dir,
        "checkpoint": checkpoint,
        "step": step,
        "protocol": str(protocol),
    }
    if values.boundary_width:
        content["boundary_width"] = values.boundary_width
    content |= report(run.label_set, figures)
    if values.classes:
        mean = mean_over(run.label_set, figures, values.classes)
        content["mean_over"] = {"classes": values.classes, "iou": mean}
        print(f"mean IoU over {', '.join(values.classes)}: {mean:.4f}")
    _write(output, run.label_set, figures, content)


def _write(output: Path, label_set: LabelSet, figures: Scores, content: dict) -> None:
    """Writes JSON, CSV and the picture of the confusion matrix side by side."""
    table_file = output.with_suffix(".csv")
    picture = output.with_name(
        "confusion.png" if output.name == "eval.json" else f"{output.stem}_confusion.png"
    )
    files.write_text(output, json.dumps(content, indent=1) + "\n")
    files.write_text(table_file, csv_text(label_set, figures))
    image_files.save_picture(picture, confusion_matrix.draw(figures.matrix, label_set.names))
    print(f"protocol: {content['protocol']}\nwritten: {output}, {table_file}, {picture}")


if __name__ == "__main__":
    cli.run(main, define_flags)
