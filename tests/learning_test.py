"""Networks learn: eight images are overfitted by `kseg.train`, from records to scores."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kseg.data.datasets import LabelSet
from kseg.evaluate import evaluate
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.train import train
from tests.data import shards
from tests.models.networks import registered_backbone

LABELS = LabelSet(
    ("ground", "disc", "square", "triangle"),
    ((60, 60, 60), (200, 60, 40), (60, 180, 60), (70, 70, 210)),
)
SIZE = 65
STEPS_PER_EPOCH, EPOCHS = 20, 4


def draw_shapes(number):
    """Returns an image file with a disc, a square and a triangle on noisy ground, and its label."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (SIZE, SIZE), LABELS.colours[0])
    label = Image.new("L", (SIZE, SIZE), 0)
    places = rng.permutation([(18, 18), (47, 18), (18, 47), (47, 47)])[:3]
    for class_id, (x, y) in enumerate(places, start=1):
        half = int(rng.integers(10, 15))
        box = (x - half, y - half, x + half, y + half)
        corners = [(x - half, y + half), (x + half, y + half), (x, y - half)]
        for drawing, colour in ((image, LABELS.colours[class_id]), (label, class_id)):
            draw = ImageDraw.Draw(drawing)
            if class_id == 1:
                draw.ellipse(box, fill=colour)
            elif class_id == 2:
                draw.rectangle(box, fill=colour)
            else:
                draw.polygon(corners, fill=colour)
    noisy = np.asarray(image) + rng.normal(0, 20, (SIZE, SIZE, 3))
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return shards.encoded(pixels), np.asarray(label)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Eight images: `val` holds them once, `train` so often that an epoch has several steps."""
    folder = tmp_path_factory.mktemp("shapes")
    images = [draw_shapes(number) for number in range(8)]
    shards.write(folder, "train", images * STEPS_PER_EPOCH, label_set=LABELS)
    shards.write(folder, "val", images, label_set=LABELS)
    return folder


# Without a decoder, the logits depend on the context module alone.
@pytest.mark.parametrize(
    ("strides", "options"),
    [
        ((4,), {"context": "ksac", "decoder": False}),
        ((4, 16), {"context": "ksac", "decoder_convs": 1}),
    ],
    ids=["ksac", "ksac with decoder"],
)
def test_eight_images_are_overfitted(strides, options, records, tmp_path):
    with registered_backbone(*strides):
        experiment = Experiment(
            data_dir=str(records), model_dir=str(tmp_path / "run"), backbone="tiny", filters=32,
            output_stride=max(strides), dilation_rates=(1, 2), crop_size=(SIZE, SIZE),
            min_scale=1.0, max_scale=1.0, horizontal_flip=False, batch_size=8, epochs=EPOCHS,
            val_every=EPOCHS, learning_rate=0.1, batch_norm_momentum=0.9, seed=1, **options,
        )  # fmt: skip
        assert train(experiment) == 0
        scores = evaluate(RunFolder(experiment.model_dir), str(records), "val")
    assert scores.support.min() > 0
    assert scores.miou > 0.9
