"""The metrics of `artifact.metrics` for mmengine's evaluator, so that training reports the same, unrounded figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from mobileclip_dense.artifact.metrics import SegmentationScore, depth_errors, mean_errors

Cells = tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]


@METRICS.register_module()
class IoUScore(BaseMetric):
    """mIoU, aAcc and mAcc over all images, in percent: `dict(type="IoUScore")` instead of mmseg's IoUMetric.

    It collects one entry per image, the non-zero cells of its confusion matrix. mmengine can then drop the images that
    the sampler repeats to give all processes equally many, and little data is sent between processes.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Collect the confusion matrices of images: `pred_sem_seg` and `gt_sem_seg`, each integer [1,H,W]."""
        for sample in data_samples:
            score = SegmentationScore(num_classes=self._num_classes())
            predicted, truth = (sample[key]["data"].squeeze(0).cpu().numpy() for key in ("pred_sem_seg", "gt_sem_seg"))
            score.add(predicted, truth)
            cells = np.flatnonzero(score.confusion)
            self.results.append((cells, score.confusion.flat[cells]))

    def compute_metrics(self, results: list[Cells]) -> dict[str, float]:
        """Compute the figures from the sum of all confusion matrices.

        Raises:
            ValueError: no pixel is labelled, so the figures are undefined.
        """
        score = SegmentationScore(num_classes=self._num_classes())
        for cells, counts in results:
            score.confusion.flat[cells] += counts
        if not score.confusion.any():
            raise ValueError(f"mIoU: found no labelled pixel in {len(results)} images, expected some; check the labels")
        return score.figures()

    def _num_classes(self) -> int:
        assert self.dataset_meta is not None
        return len(self.dataset_meta["classes"])


@METRICS.register_module()
class DepthErrors(BaseMetric):
    """The mean over images of each error of `artifact.metrics.depth_errors`, instead of mmseg's DepthMetric.

    Args:
        max_depth_m: readings of this depth or more are ignored, metres.
        eigen_crop: see `depth_errors`.
        kwargs: arguments of mmengine's `BaseMetric`.
    """

    def __init__(self, max_depth_m: float, eigen_crop: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_depth_m = max_depth_m
        self.eigen_crop = eigen_crop

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Collect the errors of images: `pred_depth_map` and `gt_depth_map`, each float [1,H,W], metres."""
        for sample in data_samples:
            predicted, truth = (
                sample[key]["data"].squeeze().cpu().numpy() for key in ("pred_depth_map", "gt_depth_map")
            )
            try:
                self.results.append(depth_errors(predicted, truth, self.max_depth_m, eigen_crop=self.eigen_crop))
            except ValueError as error:
                raise ValueError(f"{sample['img_path']}: {error}") from None

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """The mean of each error."""
        return mean_errors(results)
