"""The model card of published weights: what the network is, and how it was trained and measured."""

import json
import math
from pathlib import Path

from kseg._version import __version__
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs import data_contents, records
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.folder import RunFolder
from kseg.runs.rules import to_text

_SCORES = {
    "miou": "mean IoU",
    "miou_without_background": "mean IoU without background",
    "foreground_iou": "IoU of the foreground",
    "pixel_accuracy": "pixel accuracy",
    "boundary_accuracy": "pixel accuracy near borders",
    "internal_accuracy": "pixel accuracy elsewhere",
}


def recipe(experiment: Experiment) -> str:
    """Returns the flags of a run as a flagfile, without the folders of the machine."""
    local = {
        name: Path(getattr(experiment, name)).name
        for name in ("init_from", "backbone_weights")
        if Path(getattr(experiment, name)).is_absolute()
    }
    return to_flagfile(experiment.replace(data_dir="", model_dir="", **local))


def model_card(run: RunFolder, model: Segmenter, *, step: int, licence: str) -> str:
    """Returns the text of `README.md`, in the form that the hub of Hugging Face reads.

    Args:
        run: The run.
        model: Its network.
        step: The step of the checkpoint whose weights are published.
        licence: Name of the licence of the weights; empty if it is not stated.

    Raises:
        UserError: The scores of the run cannot be read.
    """
    head = ["---", "library_name: keras", "pipeline_tag: image-segmentation", "tags: [kseg]"]
    head += [f"license: {json.dumps(licence)}"] * bool(licence)
    sections = {
        f"{model.name} on {run.experiment.backbone}": _description(run, model),
        "Use": _use(run),
        "Classes": [", ".join(run.label_set.names)],
        "Data": _data(run),
        "Recipe": ["```", recipe(run.experiment).rstrip(), "```"],
        "Results": _results(run, step),
        "Versions": _versions(run),
        "Licence": [licence or "Not stated."],
    }
    lines = [*head, "---"]
    for level, (title, content) in enumerate(sections.items()):
        lines += ["", f"{'##' if level else '#'} {title}", "", *content]
    return "\n".join(lines) + "\n"


def _description(run: RunFolder, model: Segmenter) -> list[str]:
    parameters = sum(math.prod(weight.shape) for weight in model.weights)
    options = ", ".join(
        f"{name} {to_text(value)}" for name, value in run.experiment.options if value is not None
    )
    return [
        f"Semantic segmentation of RGB images of any size into {model.num_classes} classes. "
        f"{parameters:,} parameters, moving statistics included. Options: {options}."
    ]


def _use(run: RunFolder) -> list[str]:
    return [
        "```python",
        "import kseg",
        "",
        'segmenter = kseg.load("this folder")  # or, after the import: keras.saving.load_model',
        "classes = segmenter.predict_classes(image)  # uint8 RGB (height, width, 3)",
        "```",
        "The network itself takes RGB in 0..255 and returns logits of the size of the image. "
        "`recipe.flags` are its flags, for `kseg.train --init_from` and `--flagfile`.",
        *_scenes(run),
    ]


def _scenes(run: RunFolder) -> list[str]:
    """Returns how images are made from scenes, if the run was trained on such images."""
    if not run.scene_bands:
        return []
    bands = run.scene_bands
    limits = ", ".join(f"{low:g} to {high:g}" for low, high in bands.limits)
    return [
        "",
        f"The images were made from scenes of {bands.dtype}: red, green and blue are the bands "
        f"{to_text(bands.bands)}, whose values {limits} became 0 to 255. Images of your own scenes "
        "must be made in the same way; `labels.json` has these numbers, too.",
    ]


def _data(run: RunFolder) -> list[str]:
    imported = [entry["imported_from"] for entry in records.read(run.environment_file)
                if "imported_from" in entry]  # fmt: skip
    if imported:
        return [f"The weights were imported from `{imported[-1]}` and not trained by kseg."]
    contents = data_contents.read_file(run.data_file)
    name = Path(run.experiment.data_dir).name
    lines = [f"- {name}, split {split}: {held}" for split, held in contents.items()]
    return lines or [f"{name}, trained on the split {to_text(run.experiment.train_split)}."]


def _results(run: RunFolder, step: int) -> list[str]:
    try:
        scores = json.loads(run.eval_file.read_text(encoding="utf-8"))
        if scores["step"] != step:
            return [f"Not measured at step {step}, whose weights these are."]
        measured = [
            f"Split {scores['split']} of {Path(scores['data_dir']).name}, checkpoint of step "
            f"{step}, {scores['protocol']}:",
            "",
        ]
        known = {key: title for key, title in _SCORES.items() if scores.get(key) is not None}
        values = {title: scores[key] for key, title in known.items()}
        values |= {f"IoU of {name}": iou for name, iou in scores["iou"].items() if iou is not None}
        return [*measured, *(f"- {title}: {value:.4f}" for title, value in values.items())]
    except FileNotFoundError:
        return ["Not measured. `python -m kseg.evaluate` measures a run."]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The scores {run.eval_file} cannot be read: {error}") from error


def _versions(run: RunFolder) -> list[str]:
    lines = [f"- written by kseg {__version__}"]
    for entry in records.read(run.environment_file)[-1:]:
        packages = {"kseg": entry.get("kseg"), **entry.get("packages", {})}
        named = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        lines.append(f"- last start of the run: {named}")
        if entry.get("git_commit"):
            lines.append(f"- commit of kseg: {entry['git_commit']}")
    return lines
