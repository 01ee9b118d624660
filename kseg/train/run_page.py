"""The pages of a run in TensorBoard: the order of its charts, and its hyperparameters."""

import re

from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalars
from tensorboard.plugins.hparams import api as hparams

from kseg.data.datasets import LabelSet
from kseg.runs.experiment import Experiment

# Values of an experiment that TensorBoard's HParams page shows.
_HPARAMS = (
    "model",
    "context",
    "backbone",
    "dilation_rates",
    "output_stride",
    "decoder",
    "crop_size",
    "batch_size",
    "learning_rate",
    "schedule",
    "weight_decay",
    "seed",
)


def charts(label_set: LabelSet) -> bytes:
    """Returns a summary that orders the charts: mIoU, then the classes, then the training."""
    chart, content = layout_pb2.Chart, layout_pb2.MultilineChartContent
    pages = {
        "mIoU": ["val_miou", "val_pixel_accuracy"],
        "IoU of each class": [f"val_iou/{name}" for name in label_set.names],
        "training": ["loss", "learning_rate", "gradient_norm", "images_per_second"],
    }
    categories = []
    for title, tags in pages.items():
        lines = [chart(title=tag, multiline=content(tag=[f"^{re.escape(tag)}$"])) for tag in tags]
        categories.append(layout_pb2.Category(title=title, chart=lines))
    return custom_scalars.pb(layout_pb2.Layout(category=categories)).SerializeToString()


def hyperparameters(experiment: Experiment) -> bytes:
    """Returns a summary of the hyperparameters; TensorBoard adds the scores by their names."""
    values = {}
    for name, value in experiment.fields(_HPARAMS).items():
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        if value is not None:
            values[name] = value
    return hparams.hparams_pb(values, trial_id=experiment.model_dir).SerializeToString()
