"""Predicts images and writes the results."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kseg.data.datasets import VOC, LabelSet
from kseg.data.images import MAX_PIXELS, MAX_TILED_PIXELS, is_tiff, read_image
from kseg.data.names import shown
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.inference.config import InferenceConfig
from kseg.inference.frozen import for_inference
from kseg.inference.predictor import Predictor
from kseg.inference.tiles import Tiling
from kseg.models import Segmenter
from kseg.predict.outputs import Output, predict_array, predict_tiff, save_probabilities
from kseg.predict.vectors import VectorFile
from kseg.visualization import image_files, label_maps, sheets
from kseg.visualization.progress import progress_bar

# comp6 is the VOC challenge of segmentation for networks that were trained on other data as well.
SUBMISSION = Path("results", "VOC2012", "Segmentation", "comp6_test_cls")


def predict(
    model: Segmenter,
    label_set: LabelSet,
    images: dict[str, Path],
    output_dir: str | os.PathLike | None,
    *,
    config: InferenceConfig | None = None,
    tiling: Tiling | None = None,
    probabilities: bool = False,
    alpha: float = 0.5,
    sheet_rows: int = 8,
    max_pixels: int | None = None,
    submission: str | os.PathLike | None = None,
    scene_bands: SceneBands | None = None,
    vectors: VectorFile | None = None,
) -> list[str]:
    """Predicts all images and writes the results. An image that cannot be read is skipped.

    Args:
        model: The network.
        label_set: Names and colours of its classes.
        images: Name of the results -> path of the image, as `find_images` returns them.
        output_dir: Folder for the results, created if missing. Each file is written completely or
            not at all. None: only the submission is written.
        config: The views of an image, or of a tile, and how they are averaged. Defaults to a single
            view.
        tiling: How images larger than a tile are cut. Defaults to None: TIFFs as by
            `Tiling.of(model)`, other images not at all.
        probabilities: Whether the class probabilities are written as well.
        alpha: Weight of the class colours in the overlays.
        sheet_rows: Number of images on `contact_sheet.png`; 0 for no sheet.
        max_pixels: Larger images are refused, except TIFFs. Defaults to None: 20 million pixels, or
            170 million with `tiling`.
        submission: Folder of a submission to the server of PASCAL VOC; None for no submission.
        scene_bands: The bands of TIFFs that the network sees, `RunFolder.scene_bands`. Defaults to
            None: the first three, of uint8.
        vectors: File that receives the polygons of the TIFFs. Defaults to None.

    Returns:
        A message for each image that failed, with its path.

    Raises:
        UserError: The submission has other classes than VOC or images of the same name, or the
            config needs a package that is not installed or does not fit the tiles.
    """
    if submission is not None:
        check_submission(label_set, images)
    if output_dir is not None:
        _refuse_folder_of_masks(Path(output_dir))
    # TIFFs are always cut into tiles.
    cut = tiling or (Tiling.of(model) if any(map(is_tiff, images.values())) else None)
    tile = cut and cut.tile
    predictor = Predictor(for_inference(model, config, tile), config, tile=tile)
    if tiling and config:
        config.check_fits(*tiling.tile)
    if max_pixels is None:
        max_pixels = MAX_TILED_PIXELS if tiling else MAX_PIXELS
    options = {"alpha": alpha, "probabilities": probabilities and output_dir is not None}
    failures, rows = [], []

    def predict_file(name: str, path: Path) -> Path | None:
        """Predicts one image; returns the labels of a TIFF whose polygons are wanted."""
        if is_tiff(path):
            if submission is not None:
                raise UserError("`--submission` does not support TIFFs")
            labels = predict_tiff(
                predictor,
                path,
                name,
                output_dir,
                label_set,
                tiling=cut,
                bands=scene_bands,
                **options,
            )
            if vectors is None:
                return None
            vectors.check_scene(labels)
            return labels
        image = read_image(path, max_pixels)
        output = predict_array(predictor, image, label_set, tiling=tiling, **options)
        if submission is not None:
            file = Path(submission) / SUBMISSION / f"{Path(name).name}.png"
            image_files.save_palette_png(file, output.labels, VOC.colours)
        if output_dir is not None:
            _save(Path(output_dir), name, output, label_set)
            if len(rows) < sheet_rows:
                prediction = label_maps.colourise(output.labels, label_set.colours)
                cells = (image, output.overlay, prediction)
                rows.append([sheets.fitted(cell, sheets.CELL_SIZE) for cell in cells])
        return None

    for name, path in progress_bar(images.items(), desc="predict", unit="image"):
        try:
            labels = predict_file(name, path)
        except UserError as error:
            failures.append(f"{shown(path)}: {error}")
            continue
        if labels is not None:
            vectors.add(name, labels)
    if output_dir is not None and len(failures) < len(images):
        legend = sheets.legend(label_set.names, label_set.colours)
        image_files.save_picture(Path(output_dir) / "legend.png", legend)
    if rows:
        save_sheet(
            Path(output_dir) / "contact_sheet.png", rows, label_set, ("overlay", "prediction")
        )
    return failures


def _refuse_folder_of_masks(output_dir: Path) -> None:
    """Raises `UserError` if `labels` in the folder is not that of an earlier prediction."""
    labels = output_dir / "labels"
    if labels.is_dir() and any(labels.iterdir()) and not (output_dir / "overlays").is_dir():
        raise UserError(
            "`--output_dir` must not hold a folder `labels` of other files, such as masks, which "
            f"predictions would replace. Received: {output_dir}"
        )


def _save(output_dir: Path, name: str, output: Output, label_set: LabelSet) -> None:
    """Writes the files of one image."""
    image_files.save_picture(output_dir / "overlays" / f"{name}.png", output.overlay)
    labels = output_dir / "labels" / f"{name}.png"
    image_files.save_palette_png(labels, output.labels, label_set.colours)
    if output.probabilities is not None:
        save_probabilities(output_dir / "probabilities" / f"{name}.npz", output.probabilities)


def check_submission(label_set: LabelSet, images: dict[str, Path]) -> None:
    """Raises `UserError` unless the server of PASCAL VOC accepts the classes and the names."""
    if label_set.names != VOC.names:
        raise UserError(
            "`--submission` needs a run on the 21 classes of PASCAL VOC, in their order. "
            f"Received: {', '.join(label_set.names)}"
        )
    paths: dict[str, Path] = {}
    for name, path in images.items():
        first = paths.setdefault(Path(name).name, path)
        if first != path:
            raise UserError(
                "`--submission` needs images of different names, since it has no folders. "
                f"Received: {first} and {path}"
            )


def save_sheet(
    path: str | os.PathLike,
    rows: Sequence[Sequence[np.ndarray]],
    label_set: LabelSet,
    titles: Sequence[str],
) -> None:
    """Writes a contact sheet with the images in its first column and a column for each title."""
    sheet = sheets.contact_sheet(
        rows,
        ("image", *titles),
        names=label_set.names,
        colours=label_set.colours,
    )
    image_files.save_picture(path, sheet)
