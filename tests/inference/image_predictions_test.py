"""The file of predictions: what it holds, and what is said of a damaged one."""

import numpy as np
import pytest

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.inference.image_predictions import Predictions, PredictionsWriter, iou
from kseg.inference.image_scores import MeasuredImage, confusion_matrix
from kseg.recipe.metrics import scores

LABELS = LabelSet(("ground", "cat", "dog"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))


@pytest.fixture
def images():
    """Three images of different sizes, the last two in another order; dogs are in one label."""
    random = np.random.default_rng(0)
    found = []
    for number, shape in ((0, (4, 5)), (2, (3, 7)), (1, (6, 2))):
        labels = random.choice([0, 1, 255] if number else [0, 1, 2, 255], shape).astype(np.uint8)
        labels.flat[:2] = 0, 1
        prediction = random.integers(0, 3, shape, np.uint8)
        matrix = confusion_matrix(labels, prediction, LABELS)
        picture = np.zeros((*shape, 3), np.uint8)
        found.append(
            MeasuredImage(
                f"image {number}", "shard", number, number, picture, labels, prediction, matrix,
                scores(matrix),
            )
        )  # fmt: skip
    return found


def write(path, images):
    with PredictionsWriter(path) as writer:
        for image in images:
            writer.add(image)


def test_the_images_are_in_the_order_of_the_split(images, tmp_path):
    write(tmp_path / "predictions.npz", images)
    found = Predictions(tmp_path / "predictions.npz")
    assert found.names == ["image 0", "image 1", "image 2"]
    assert found.counts.shape == (3, 3, 3) and found.counts.dtype == np.int64
    for image in images:
        np.testing.assert_array_equal(found.prediction(image.number), image.prediction)
        labelled = image.labels != 255
        for k in range(3):
            is_label, is_predicted = image.labels == k, (image.prediction == k) & labelled
            expected = [is_label.sum(), is_predicted.sum(), (is_label & is_predicted).sum()]
            assert found.counts[image.number, :, k].tolist() == expected


def test_summed_counts_give_the_scores_of_the_summed_confusion_matrices(images, tmp_path):
    write(tmp_path / "predictions.npz", images)
    counts = Predictions(tmp_path / "predictions.npz").counts
    expected = scores(sum(image.matrix for image in images))
    np.testing.assert_allclose(iou(counts.sum(axis=0)), expected.iou)
    # Dogs are not labelled in the second image.
    assert np.isnan(iou(counts[1])[2]) and not np.isnan(iou(counts[1])[:2]).any()


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "without counts"])
def test_a_file_that_cannot_be_read_is_named(images, tmp_path, damage):
    path = tmp_path / "predictions.npz"
    write(path, images)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    else:
        np.savez(path, names=np.array(["a"]))
    with pytest.raises(UserError, match=r"predictions\.npz.*--predictions"):
        Predictions(path)


def test_an_error_leaves_no_file_that_could_be_read(images, tmp_path):
    path = tmp_path / "predictions.npz"
    with pytest.raises(RuntimeError), PredictionsWriter(path) as writer:
        writer.add(images[0])
        raise RuntimeError
    with pytest.raises(UserError):
        Predictions(path)
