"""What TensorBoard shows of a run besides its points: the order of charts, and what the run is."""

import re

from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalars
from tensorboard.plugins.hparams import api as hparams

from kseg.data.datasets import LabelSet
from kseg.runs.experiment import Experiment

# Fields of an experiment by which runs are told apart in TensorBoard's HParams page.
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
    """A summary that orders the custom page: mIoU first, then each class, then the training."""
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
    """A summary of what tells this run from others; TensorBoard adds the figures by their names."""
    values = {}
    for name, value in experiment.fields(_HPARAMS).items():
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        if value is not None:
            values[name] = value
    return hparams.hparams_pb(values, trial_id=experiment.model_dir).SerializeToString()
