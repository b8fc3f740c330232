"""Task metrics in NumPy, for artifacts that run where there is no torch."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mobileclip_dense.contract.palette import IGNORE_INDEX


@dataclass(kw_only=True)
class SegmentationScore:
    """Accumulates a confusion matrix over images.

    Attributes:
        num_classes: number of classes. confusion: int64 [num_classes,num_classes], rows truth, columns prediction.
    """

    num_classes: int
    confusion: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.num_classes, self.num_classes), np.int64)

    def add(self, predicted: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]) -> None:
        """Count one image: class indices [H,W] each; truth pixels of IGNORE_INDEX do not count."""
        known = truth != IGNORE_INDEX
        pair = truth[known].astype(np.int64) * self.num_classes + predicted[known].astype(np.int64)
        self.confusion += np.bincount(pair, minlength=self.num_classes**2).reshape(self.confusion.shape)

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class [num_classes], 0..1; NaN for classes in neither truth nor prediction."""
        hit = np.diag(self.confusion).astype(np.float64)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hit
        return np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)

    def miou_percent(self) -> float:
        """Mean over the classes that occur, in percent, as mmsegmentation reports it."""
        return float(np.nanmean(self.iou()) * 100)


def depth_errors(
    predicted_m: npt.NDArray[np.floating], truth_m: npt.NDArray[np.floating], max_depth_m: float
) -> dict[str, float]:
    """Errors of one depth map [H,W] in metres, over the pixels with 0 < truth < max_depth_m.

    Returns:
        rmse_m: root mean squared error. abs_rel: mean |error| / truth. d1: share of pixels within a factor of 1.25.

    Raises:
        ValueError: no pixel has a reading.
    """
    valid = (truth_m > 0) & (truth_m < max_depth_m)
    if not valid.any():
        raise ValueError(f"depth: no pixel with a reading between 0 and {max_depth_m} m; is the unit right?")
    predicted, truth = predicted_m[valid].astype(np.float64), truth_m[valid].astype(np.float64)
    ratio = np.maximum(predicted / truth, truth / np.maximum(predicted, 1e-6))
    return {
        "rmse_m": float(np.sqrt(np.mean((predicted - truth) ** 2))),
        "abs_rel": float(np.mean(np.abs(predicted - truth) / truth)),
        "d1": float(np.mean(ratio < 1.25)),
    }
