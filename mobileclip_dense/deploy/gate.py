"""The accuracy cost of a lossy precision on the run's held-out images, and its tolerances."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.config import FinetuneConfig, PretrainConfig
from mobileclip_dense.data.labelled.annotations import read_class_labels, read_depth_m
from mobileclip_dense.deploy.prepared import Prepared
from mobileclip_dense.deploy.samples import list_dense_pairs, sample_images
from mobileclip_dense.runtime.accuracy import Map, predict_all, score_depth, score_segmentation
from mobileclip_dense.runtime.predictor import Predictor

MAX_MIOU_DROP_POINTS = 0.5
MAX_RMSE_INCREASE_PERCENT = 2.0
MIN_MEAN_COSINE = 0.99

Cost = dict[str, float]


def cost_function(prepared: Prepared, reference: Predictor, num_images: int) -> Callable[[Predictor], Cost]:
    """A function that measures the cost of a candidate against `reference`, which is run only once.

    The figures depend on the task. segment: mIoU of reference and candidate in percent, their difference in points,
    agreement of the class maps in percent. depth: RMSE of both in metres, its increase in percent. embed-image: mean
    cosine of the embeddings.
    """
    config = prepared.run.config
    if isinstance(config, PretrainConfig):
        images = sample_images(config, "val", num_images, prepared.size_px)
        expected = _embed(reference, prepared.outputs[0], images)
        return lambda candidate: {
            "num_evaluated_images": len(images),
            "mean_cosine": float(np.mean(np.sum(_embed(candidate, prepared.outputs[0], images) * expected, axis=1))),
        }
    measure = _segmentation_cost if prepared.task == "segment" else _depth_cost
    pairs = list_dense_pairs(config, "val", num_images)
    images_of = [image for image, _ in pairs]
    before = predict_all(reference, prepared.outputs[-1], images_of, prepared.size_px, "reference")

    def cost(candidate: Predictor) -> Cost:
        after = predict_all(candidate, prepared.outputs[-1], images_of, prepared.size_px, "candidate")
        labels = [label for _, label in pairs]
        return {"num_evaluated_images": len(pairs), **measure(prepared, config, labels, before, after)}

    return cost


def excess(cost: Cost) -> str | None:
    """The reason why a cost is above the tolerance, None if it is within."""
    # The comparisons are negated so that NaN is above the tolerance.
    if not cost.get("miou_drop_points", 0.0) <= MAX_MIOU_DROP_POINTS:
        return f"mIoU falls by {cost['miou_drop_points']:.2f} points, expected at most {MAX_MIOU_DROP_POINTS}"
    if not cost.get("rmse_increase_percent", 0.0) <= MAX_RMSE_INCREASE_PERCENT:
        return f"RMSE grows by {cost['rmse_increase_percent']:.2f} %, expected at most {MAX_RMSE_INCREASE_PERCENT} %"
    if not cost.get("mean_cosine", 1.0) >= MIN_MEAN_COSINE:
        return f"the mean cosine of the embeddings is {cost['mean_cosine']:.4f}, expected at least {MIN_MEAN_COSINE}"
    return None


def require_tolerable(cost: Cost, where: str, advice: str, *, allowed: bool) -> None:
    """Raise an error if a cost is above the tolerance, unless that is allowed.

    Args:
        cost: figures of a cost function.
        where: start of the error message.
        advice: what to do, for the end of the error message.
        allowed: whether any cost is allowed.

    Raises:
        ValueError: the cost is above the tolerance and `allowed` is False.
    """
    if (reason := excess(cost)) and not allowed:
        raise ValueError(f"{where}: {reason}; the artifact was not written. {advice}, or pass --allow-accuracy-drop")


def _embed(predictor: Predictor, output: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return np.concatenate([predictor(image[None])[output] for image in images])


def _segmentation_cost(
    prepared: Prepared, _config: FinetuneConfig, labels: list[Any], before: list[Map], after: list[Map]
) -> Cost:
    record = prepared.run.record
    truths = [read_class_labels(label, record["reduce_zero_label"], record["ignored_label"]) for label in labels]
    reference, found = (score_segmentation(maps, truths, len(record["class_names"])) for maps in (before, after))
    agreement = float(np.mean([(a == b).mean() for a, b in zip(before, after, strict=True)]) * 100)
    return {"reference_miou_percent": reference, "miou_percent": found, "miou_drop_points": reference - found,
            "class_map_agreement_percent": agreement}  # fmt: skip


def _depth_cost(
    _prepared: Prepared, config: FinetuneConfig, labels: list[Any], before: list[Map], after: list[Map]
) -> Cost:
    truths = [read_depth_m(label, config.depth_units_per_m) for label in labels]
    reference, found = (score_depth(maps, truths, config.max_depth_m)["rmse"] for maps in (before, after))
    return {"reference_rmse_m": reference, "rmse_m": found, "rmse_increase_percent": (found / reference - 1) * 100}
