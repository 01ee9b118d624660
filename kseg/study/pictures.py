"""The pictures of a study: curves with bands, and the images that the modules disagree on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.pipeline import eval_dataset
from kseg.study.results import Module
from kseg.visualization.label_maps import colourise
from kseg.visualization.sheets import CELL_SIZE, MAX_WIDTH, contact_sheet

IMAGES = 6  # On the sheet.
_LEAST_CELL = 120  # Pixels; more than 13 columns make the sheet wider.


def disagreement(modules: Sequence[Module]) -> np.ndarray:
    """Returns for each image the fraction of pixels for which the first seeds do not all agree."""
    predictions = [module.first.predictions for module in modules]
    fractions = []
    for number in range(len(predictions[0].names)):
        first, *others = (found.prediction(number) for found in predictions)
        differs = np.any([other != first for other in others], axis=0)
        fractions.append(differs.mean())
    return np.array(fractions)


def disagreement_sheet(
    modules: Sequence[Module], data_dir: str | Path, split: str, count: int = IMAGES
) -> Image.Image:
    """Draws the images on which the predictions of the first seeds differ in most pixels.

    Each row has the image, the prediction of each module and the label, below the name of the image
    and the fraction of its pixels for which the predictions are not all the same.

    Args:
        modules: At least two modules.
        data_dir: Folder of the records.
        split: The split that was measured.
        count: Number of images.
    """
    fractions = disagreement(modules)
    chosen = np.argsort(-fractions, kind="stable")[:count].tolist()
    label_set = modules[0].first.run.folder.label_set
    found = {}
    for image, label, number, _ in eval_dataset(data_dir, split, with_records=True):
        if int(number[0]) in chosen:
            found[int(number[0])] = (image[0].numpy(), label[0].numpy())
        if len(found) == len(chosen):
            break
    rows, titles = [], []
    for number in chosen:
        image, label = found[number]
        maps = [module.first.predictions.prediction(number) for module in modules]
        rows.append([image, *(colourise(ids, label_set.colours) for ids in (*maps, label))])
        name = modules[0].first.predictions.names[number]
        titles.append(f"{name}: {fractions[number]:.1%} of the pixels differ")
    columns = ["image", *(module.name for module in modules), "label"]
    return contact_sheet(
        rows,
        columns,
        names=label_set.names,
        colours=label_set.colours,
        row_titles=titles,
        cell_size=max(_LEAST_CELL, min(CELL_SIZE, MAX_WIDTH // len(columns))),
    )
