"""Measurement of detectors on held-out images: overall, by class and by image."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.device import get_device
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config import EvaluateConfig, FinetuneConfig
from mobileclip_dense.data.labelled.coco import CocoSet, read_images
from mobileclip_dense.data.labelled.coco_check import check_coco
from mobileclip_dense.dense.detector import InstanceDetector
from mobileclip_dense.dense.evaluation.coco_metric import (
    CocoMetric,
    encode_prediction,
    evaluate_detections,
    index_truth,
    measure_images,
)
from mobileclip_dense.dense.evaluation.detection_pictures import draw_detections
from mobileclip_dense.dense.evaluation.measure import Measured, Row
from mobileclip_dense.dense.evaluation.validation_set import naming_changed_data, verify_same_images
from mobileclip_dense.dense.model import build_from_run
from mobileclip_dense.dense.training.coco import CocoObjects, collate, val_transforms
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.run.folder import Run

_MIN_SHOWN_SCORE = 0.5


def measure_detector(config: EvaluateConfig, run: Run, settings: FinetuneConfig) -> Measured:
    """Measure COCO's figures in percent and the AP of boxes and masks by class.

    Pictures show the images with the lowest mask F1, worst first.

    Raises:
        FileNotFoundError, ValueError: the images, their annotations or the settings cannot be used.
    """
    if config.mode != "whole" or config.scales != (1.0,) or config.flip:
        raise ValueError("--mode, --scales, --flip: a detector is evaluated on whole images, once; omit these flags")
    if config.class_names is not None:
        raise ValueError("--class-names: COCO's annotation files contain the class names; omit this flag")
    settings = settings if config.data is None else replace(settings, data=config.data, skip_bad=config.skip_bad)
    if config.data is None:
        with naming_changed_data(run):
            coco = check_coco(settings, ("val",))
            verify_same_images(run, [image["file_name"] for image, _ in read_images(coco, "val")])
    else:
        coco = check_coco(settings, ("val",))
    if list(coco.class_names) != run.record["class_names"]:
        raise ValueError(
            f"{settings.data}: classes: found {len(coco.class_names)}, which differ from the "
            f"{len(run.record['class_names'])} of the run {run.folder}; evaluate the run on data with its own classes"
        )
    model: Any = build_from_run(settings, run).eval().to(get_device())
    metric, truths = CocoMetric(coco), []
    for sample, prediction in detect_images(model, settings, coco, config.max_images):
        metric.process(None, [prediction])
        truth = sample["data_samples"]
        truths.append(encode_prediction(truth | {"scores": torch.ones(len(truth["labels"]))}))
    results: list[dict[str, Any]] = list(metric.results)
    scores = measure_images(coco, results)
    files = {image["id"]: coco.image_folder("val") / image["file_name"] for image, _ in read_images(coco, "val")}
    paths = [files[result["image_id"]] for result in results]
    rows: list[Row] = [
        {"name": path.name, "mask_f1": scores[result["image_id"]], "num_objects": len(truth["labels"]),
         "num_found": int((result["scores"] >= _MIN_SHOWN_SCORE).sum())}
        for path, result, truth in zip(paths, results, truths, strict=True)
    ]  # fmt: skip
    worst = sorted(range(len(rows)), key=lambda index: rows[index]["mask_f1"])[: config.num_worst]
    pictures = {
        f"worst/{number:02}-{paths[index].stem}.png": _draw(paths[index], truths[index], results[index], run.record)
        for number, index in enumerate(worst, 1)
    }
    return Measured(
        figures=metric.compute_metrics(results), classes=_by_class(coco, results), images=rows, pictures=pictures
    )


def _by_class(coco: CocoSet, results: list[dict[str, Any]]) -> list[Row]:
    truth = index_truth(coco, [result["image_id"] for result in results])
    kinds = {}
    for name, kind in (("box_ap", "bbox"), ("mask_ap", "segm")):
        evaluation = evaluate_detections(truth, coco, results, kind)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        kinds[name] = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU,recall,category]; -1 without objects
    counts = {number: len(truth.getAnnIds(catIds=[number], iscrowd=False)) for number in coco.category_ids}
    return [
        {"name": name, **{key: _mean_percent(precision[:, :, k]) for key, precision in kinds.items()},
         "num_objects": counts[number]}
        for k, (name, number) in enumerate(zip(coco.class_names, coco.category_ids, strict=True))
    ]  # fmt: skip


def _mean_percent(precision: npt.NDArray[np.float64]) -> float | None:
    defined = precision[precision > -1]
    return 100 * float(defined.mean()) if defined.size else None


def _draw(path: Path, truth: dict[str, Any], found: dict[str, Any], record: dict[str, Any]) -> bytes:
    """PNG: the photograph with the true objects, beside the photograph with the detected objects."""
    image = load_image(path)
    palette = [tuple(colour) for colour in record["palette"]]
    panels = []
    for objects, scores in ((truth, None), (found, found["scores"])):
        shown = np.flatnonzero(objects["scores"] >= _MIN_SHOWN_SCORE)
        masks = [coco_mask.decode(objects["masks"][index]).astype(bool) for index in shown]
        panels.append(
            draw_detections(
                image, objects["boxes"][shown], np.array(masks).reshape(len(shown), *image.shape[:2]),
                objects["labels"][shown], None if scores is None else scores[shown], record["class_names"], palette,
            )
        )  # fmt: skip
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([image, *panels], axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def detect_images(
    model: InstanceDetector, config: FinetuneConfig, coco: CocoSet, max_images: int | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Run a model in evaluation mode on the first `max_images` held-out images (None: on all).

    Yields:
        The sample {"inputs": float [3,H,W] in 0..1, "data_samples": the true boxes, masks, labels and image_id} and
        the prediction, see `InstanceDetector.forward`.
    """
    dataset = CocoObjects(coco, "val", val_transforms())
    number = min(len(dataset), max_images or len(dataset))
    loader: DataLoader[Any] = DataLoader(
        dataset, sampler=range(number), num_workers=config.num_workers, collate_fn=collate
    )
    for batch in progress_bar(loader, "detect", unit="image"):
        with torch.inference_mode():
            (prediction,) = model.val_step(batch)
        yield {name: values[0] for name, values in batch.items()}, prediction
