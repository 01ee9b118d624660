"""What TensorBoard reads of a run: the order of its charts, and its hyperparameters."""

import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from kseg.data.datasets import LabelSet
from kseg.runs.experiment import Experiment
from kseg.train.run_log import RunLog
from kseg.train.run_page import charts, hyperparameters

LABELS = LabelSet(("sky", "c++ (tower)"), ((0, 0, 0), (1, 1, 1)))


def values(folder):
    """Returns the values of all summaries in the event files, by tag."""
    found = {}
    for path in folder.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found |= {value.tag: value for value in event.summary.value}
    return found


def test_the_custom_page_begins_with_miou_followed_by_each_class(tmp_path):
    with RunLog(tmp_path / "logs", tmp_path / "metrics.csv") as log:
        log.describe(charts(LABELS))
    (value,) = values(tmp_path / "logs").values()
    assert value.metadata.plugin_data.plugin_name == "custom_scalars"
    layout = layout_pb2.Layout.FromString(value.tensor.string_val[0])
    titles = [[chart.title for chart in category.chart] for category in layout.category]
    assert titles[0][0] == "val_miou"
    assert titles[1] == ["val_iou/sky", "val_iou/c++ (tower)"]
    # TensorBoard reads this tag as a regular expression.
    assert list(layout.category[1].chart[1].multiline.tag) == [r"^val_iou/c\+\+\ \(tower\)$"]


def test_hparams_hold_context_backbone_and_rates(tmp_path):
    experiment = Experiment(context="ksac", dilation_rates=(1, 6), model_dir="runs/a")
    with RunLog(tmp_path / "logs", tmp_path / "metrics.csv") as log:
        log.describe(hyperparameters(experiment))
    (value,) = values(tmp_path / "logs").values()
    content = value.metadata.plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    read = {name: item.string_value or item.number_value for name, item in info.hparams.items()}
    assert (read["context"], read["backbone"]) == ("ksac", "mobilenet_v2")
    assert (read["dilation_rates"], read["learning_rate"]) == ("1,6", 0.007)


def test_the_hparams_page_finds_the_last_miou_of_every_run_under_one_tag(tmp_path):
    """TensorBoard joins the hyperparameters and the scalars of a folder of events."""
    tags = []
    for context, mious in (("ksac", (0.25, 0.5)), ("none", (0.5, 0.75))):
        folder = tmp_path / context
        with RunLog(folder / "logs", folder / "metrics.csv") as log:
            log.describe(charts(LABELS), hyperparameters(Experiment(context=context)))
            for epoch, miou in enumerate(mious, start=1):
                row = {"epoch": epoch, "step": 30 * epoch, "loss": 1.0, "val_miou": miou}
                log.epoch(row, {"sky": miou}, None)
        found = values(folder / "logs")
        content = found["_hparams_/session_start_info"].metadata.plugin_data.content
        info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        assert info.hparams["context"].string_value == context
        assert tf.make_ndarray(found["val_miou"].tensor) == mious[-1]
        tags.append(set(found))
    assert tags[0] == tags[1]


def test_a_run_that_starts_again_is_described_once(tmp_path):
    for _ in range(2):
        with RunLog(tmp_path / "logs", tmp_path / "metrics.csv") as log:
            log.describe(charts(LABELS))
    assert len(list((tmp_path / "logs").glob("events.*"))) == 1
