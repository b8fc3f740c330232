"""Measurement of segmentation and depth models on held-out images: overall, by class and by image."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobileclip_dense.artifact.metrics import EIGEN_CROP, SegmentationScore, depth_errors, mean_errors
from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import EvaluateConfig, FinetuneConfig
from mobileclip_dense.dense.evaluation.inference import predict_classes, predict_depth
from mobileclip_dense.dense.evaluation.pictures import draw_classes, draw_confusion, draw_depth
from mobileclip_dense.dense.evaluation.validation_set import ValidationSet, View
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.run.folder import Run

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result of measuring a run of any task.

    Attributes:
        figures: figures over all images, by name.
        classes: a row for each class: name and figures (None: undefined). Empty for a task without classes.
        images: a row for each image: name and figures (None: undefined).
        pictures: PNG files by name, in display order.
    """

    figures: dict[str, float]
    classes: list[Row]
    images: list[Row]
    pictures: dict[str, bytes]


def measure_segmenter(config: EvaluateConfig, run: Run, settings: FinetuneConfig) -> Measured:
    """Measure mIoU, aAcc and mAcc in percent, and IoU, accuracy and number of pixels by class.

    Pictures show the images with the lowest mIoU, worst first.

    Raises:
        FileNotFoundError, ValueError: the images, their labels or the settings cannot be used.
    """
    names, palette = run.record["class_names"], [tuple(colour) for colour in run.record["palette"]]
    validation_set = ValidationSet(config, run, settings, predict_classes)
    total, images = SegmentationScore(num_classes=len(names)), []
    for index in _progress(validation_set):
        view = validation_set.view(index)
        score = _score(view, len(names))
        total.confusion += score.confusion
        images.append({"name": Path(view.path).name, **_defined(score.figures())})
    if not total.confusion.any():
        data = validation_set.settings.data
        raise ValueError(f"{data}: annotations: found no labelled pixel in {len(images)} images, expected some")
    classes = [
        {"name": name, **_defined({"iou_percent": 100 * iou, "accuracy_percent": 100 * accuracy}), "num_pixels": pixels}
        for name, iou, accuracy, pixels in zip(
            names, total.iou().tolist(), total.accuracy().tolist(), total.confusion.sum(1).tolist(), strict=True
        )
    ]
    pictures = {"confusion.png": draw_confusion(total.confusion, names)}
    order = sorted((row["mIoU"], index) for index, row in enumerate(images) if row["mIoU"] is not None)
    for number, (_, index) in enumerate(order[: config.num_worst], 1):
        view = validation_set.view(index)
        pictures[_file_name(number, view)] = draw_classes(view, images[index], names, palette)
    return Measured(figures=total.figures(), classes=classes, images=images, pictures=pictures)


def measure_depth(config: EvaluateConfig, run: Run, settings: FinetuneConfig) -> Measured:
    """Measure the errors of `artifact.metrics.depth_errors`, averaged over images.

    Pictures show the images with the largest RMSE, worst first.

    Raises:
        FileNotFoundError, ValueError: the images, their depth maps or the settings cannot be used.
    """
    validation_set = ValidationSet(config, run, settings, predict_depth)
    errors, images = [], []
    for index in _progress(validation_set):
        view = validation_set.view(index)
        try:
            error = depth_errors(view.predicted, view.truth, settings.max_depth_m, eigen_crop=config.eigen_crop)
        except ValueError as reason:
            raise ValueError(f"{view.path}: {reason}") from None
        errors.append(error)
        images.append({"name": Path(view.path).name, **error})
    order = sorted(range(len(errors)), key=lambda index: -errors[index]["rmse"])
    pictures = {}
    for number, index in enumerate(order[: config.num_worst], 1):
        view = validation_set.view(index)
        if config.eigen_crop:
            counted = np.zeros_like(view.truth)
            counted[EIGEN_CROP] = view.truth[EIGEN_CROP]
            view = replace(view, truth=counted)
        pictures[_file_name(number, view)] = draw_depth(view, images[index], settings.max_depth_m)
    return Measured(figures=mean_errors(errors), classes=[], images=images, pictures=pictures)


def _score(view: View, num_classes: int) -> SegmentationScore:
    largest = view.truth[view.truth != IGNORE_INDEX].max(initial=0)
    if largest >= num_classes:
        raise ValueError(
            f"{view.path}: annotation: found class {largest}, expected at most {num_classes - 1}, the last class of "
            "the run; the data has changed since the run was trained"
        )
    score = SegmentationScore(num_classes=num_classes)
    score.add(view.predicted, view.truth)
    return score


def _defined(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _file_name(number: int, view: View) -> str:
    return f"worst/{number:02}-{Path(view.path).stem}.png"


def _progress(validation_set: ValidationSet) -> Any:
    return progress_bar(range(len(validation_set)), f"evaluate {validation_set.settings.task}", unit="image")
