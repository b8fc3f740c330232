"""COCO's mean average precision of boxes and masks (pycocotools)."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mobileclip_dense.data.labelled.coco import CocoSet, read_images

# In the order of COCOeval.stats: AP at IoU .5 to .95, at .5, at .75, and for small (below 32^2 pixels), medium and
# large (from 96^2) objects; recall at 1, 10 and 100 detections per image, and for small, medium and large objects.
_FIGURES = ("mAP", "mAP_50", "mAP_75", "mAP_small", "mAP_medium", "mAP_large",
            "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")  # fmt: skip
_KINDS = ("bbox", "segm")
_MIN_SCORE = 0.5  # of detections that count in the figure of a single image


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """`bbox_mAP`, `segm_mAP` and COCO's eleven other figures for each, in percent, over all processed images.

    A figure for a size (small, medium, large) is omitted if there are no objects of that size.
    """

    def __init__(self, coco: CocoSet):
        super().__init__(prefix="coco")
        self.prefix = None  # mmengine warns if no prefix is given, but would put it before every name
        self.coco = coco

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Collect predictions of `InstanceDetector`. Their masks are run-length encoded immediately, to save memory."""
        self.results.extend(encode_prediction(sample) for sample in data_samples)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Compute the figures, in percent.

        Args:
            results: `encode_prediction` of each image.

        Raises:
            ValueError: the images have no objects (crowds do not count).
        """
        truth = index_truth(self.coco, [result["image_id"] for result in results])
        figures: dict[str, float] = {}
        for kind in _KINDS:
            evaluation = evaluate_detections(truth, self.coco, results, kind)
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation.accumulate()
                evaluation.summarize()
            figures |= {
                f"{kind}_{name}": 100 * float(value)
                for name, value in zip(_FIGURES, evaluation.stats, strict=True)
                if value >= 0  # -1: there are no such objects
            }
        if "bbox_mAP" not in figures:
            raise ValueError(
                f"{self.coco.annotation_file('val')}: mAP: found no object in {len(results)} images, "
                "expected at least one; mAP is undefined without objects"
            )
        return figures


def encode_prediction(prediction: dict[str, Any]) -> dict[str, Any]:
    """A prediction of `InstanceDetector` on the CPU, its masks [N,H,W] as run-length encodings of pycocotools."""
    masks = prediction["masks"].to("cpu", torch.uint8).numpy()
    return {
        "image_id": prediction["image_id"],
        "boxes": prediction["boxes"].float().cpu().numpy(),
        "labels": prediction["labels"].cpu().numpy(),
        "scores": prediction["scores"].float().cpu().numpy(),
        "masks": [coco_mask.encode(np.asfortranarray(mask)) for mask in masks],
    }


def index_truth(coco: CocoSet, image_ids: Sequence[int]) -> COCO:
    """The annotated objects of the given held-out images, as a pycocotools data set."""
    wanted = set(image_ids)
    images = [(image, annotations) for image, annotations in read_images(coco, "val") if image["id"] in wanted]
    # Renumbered from 1: pycocotools treats an object with id 0 as never found.
    numbered = enumerate((annotation for _, annotations in images for annotation in annotations), start=1)
    return _index(
        {
            "images": [image for image, _ in images],
            "annotations": [{**annotation, "id": number} for number, annotation in numbered],
            "categories": [{"id": number} for number in coco.category_ids],
        }
    )


def evaluate_detections(truth: COCO, coco: CocoSet, results: Sequence[dict[str, Any]], kind: str) -> COCOeval:
    """Match detections to objects, for each image, category and IoU threshold.

    Args:
        truth: see `index_truth`.
        results: see `encode_prediction`.
        kind: bbox or segm.
    """
    found = [
        {
            "image_id": result["image_id"],
            "category_id": coco.category_ids[label - 1],
            "score": float(score),
            **({"bbox": [*corners[:2], *(corners[2:] - corners[:2])]} if kind == "bbox" else {"segmentation": mask}),
        }
        for result in results
        for label, score, corners, mask in zip(
            result["labels"], result["scores"], result["boxes"].astype(np.float64), result["masks"], strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        detections = truth.loadRes(found) if found else _index({**truth.dataset, "annotations": []})
        evaluation = COCOeval(truth, detections, kind)
        evaluation.evaluate()
    return evaluation


def measure_images(coco: CocoSet, results: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Mask F1 of each image by its id, 0..1, at IoU 0.5, over detections with a score of at least 0.5.

    An image without objects and without detections has F1 1. Crowds are ignored.

    Args:
        results: see `encode_prediction`.
    """
    truth = index_truth(coco, [result["image_id"] for result in results])
    evaluation = evaluate_detections(truth, coco, results, "segm")
    hits = {result["image_id"]: 0 for result in results}
    total = dict(hits)
    for match in evaluation.evalImgs:  # per category, size and image
        if match is None or match["aRng"] != evaluation.params.areaRng[0]:  # all sizes
            continue
        counted = (np.array(match["dtScores"]) >= _MIN_SCORE) & ~match["dtIgnore"][0].astype(bool)
        found = int((counted & (match["dtMatches"][0] > 0)).sum())
        hits[match["image_id"]] += found
        total[match["image_id"]] += int(counted.sum()) + int((np.array(match["gtIgnore"]) == 0).sum())
    return {number: 2 * hits[number] / total[number] if total[number] else 1.0 for number in hits}


def _index(contents: dict[str, Any]) -> COCO:
    """A pycocotools index of `contents`, built without printing pycocotools' messages."""
    index = COCO()
    index.dataset = contents
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index
