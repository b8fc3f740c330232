"""Task metrics in NumPy and float64, for training, evaluation, export and everything that runs without torch."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.palette import IGNORE_INDEX

# The part of NYUv2's 480x640 pixels on which published figures are measured (Eigen, Puhrsch and Fergus 2014).
EIGEN_CROP = (slice(45, 471), slice(41, 601))
_EIGEN_SIZE_PX = (480, 640)
_SMALLEST_M = 1e-6  # lower limit of predictions, since zero has no logarithm and no ratio


@dataclass(kw_only=True)
class SegmentationScore:
    """Accumulates a confusion matrix over images.

    Attributes:
        num_classes: number of classes.
        confusion: int64 [num_classes,num_classes]; rows are ground truth, columns are predictions.
    """

    num_classes: int
    confusion: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.num_classes, self.num_classes), np.int64)

    def add(self, predicted: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]) -> None:
        """Add an image: class indices [H,W] of prediction and truth. Truth of IGNORE_INDEX is ignored."""
        known = truth != IGNORE_INDEX
        pair = truth[known].astype(np.int64) * self.num_classes + predicted[known].astype(np.int64)
        self.confusion += np.bincount(pair, minlength=self.num_classes**2).reshape(self.confusion.shape)

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class [num_classes], 0..1. NaN for classes in neither truth nor prediction."""
        hit = np.diag(self.confusion)
        return _share(hit, self.confusion.sum(0) + self.confusion.sum(1) - hit)

    def accuracy(self) -> npt.NDArray[np.float64]:
        """Recall per class [num_classes], 0..1. NaN for classes that are not in the truth."""
        return _share(np.diag(self.confusion), self.confusion.sum(1))

    def miou_percent(self) -> float:
        """Mean IoU over the classes that occur, in percent, as in mmsegmentation. NaN without labelled pixels."""
        return _mean_percent(self.iou())

    def figures(self) -> dict[str, float]:
        """mIoU, aAcc (pixel accuracy) and mAcc (mean class accuracy) in percent, with mmsegmentation's names.

        All are NaN without labelled pixels.
        """
        found = _share(np.trace(self.confusion)[None], self.confusion.sum()[None])
        return {
            "mIoU": self.miou_percent(),
            "aAcc": _mean_percent(found),
            "mAcc": _mean_percent(self.accuracy()),
        }


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean_percent(shares: npt.NDArray[np.float64]) -> float:
    known = shares[~np.isnan(shares)]
    return float(known.mean() * 100) if known.size else float("nan")


def depth_errors(
    predicted_m: npt.NDArray[np.floating],
    truth_m: npt.NDArray[np.floating],
    max_depth_m: float,
    *,
    eigen_crop: bool = False,
) -> dict[str, float]:
    """Errors of a depth map over the pixels with 0 < truth < max_depth_m.

    The metrics are those of Eigen, Puhrsch and Fergus 2014, with the names and definitions of mmsegmentation's
    DepthMetric.

    Args:
        predicted_m, truth_m: depth [H,W], metres.
        max_depth_m: maximum depth, metres.
        eigen_crop: whether to measure only on the central part of NYUv2's 480x640 pixels.

    Returns:
        d1, d2, d3: share of pixels within a factor of 1.25, 1.25^2, 1.25^3. abs_rel: mean |error| / truth.
        sq_rel: mean error^2 / truth, metres. rmse: root mean squared error, metres. rmse_log: RMSE of the natural
        logarithm. log10: mean |error| of the decimal logarithm. silog: sqrt(mean(e^2) - mean(e)^2 / 2) with e the
        error of the natural logarithm.

    Raises:
        ValueError: no pixel has a truth in the range, or `eigen_crop` is set and the map is not 480x640.
    """
    if eigen_crop:
        if truth_m.shape != _EIGEN_SIZE_PX:
            raise ValueError(f"eigen crop: found a map of {truth_m.shape[0]}x{truth_m.shape[1]}, expected 480x640 "
                             "(NYUv2); measure without the crop")  # fmt: skip
        predicted_m, truth_m = predicted_m[EIGEN_CROP], truth_m[EIGEN_CROP]
    valid = (truth_m > 0) & (truth_m < max_depth_m)
    if not valid.any():
        raise ValueError(f"depth: no pixel with a reading between 0 and {max_depth_m} m; is the unit right?")
    predicted, truth = predicted_m[valid].astype(np.float64), truth_m[valid].astype(np.float64)
    error = predicted - truth
    positive = np.maximum(predicted, _SMALLEST_M)
    factor = np.maximum(positive / truth, truth / positive)
    error_log = np.log(positive) - np.log(truth)
    return {
        "d1": float(np.mean(factor < 1.25)),
        "d2": float(np.mean(factor < 1.25**2)),
        "d3": float(np.mean(factor < 1.25**3)),
        "abs_rel": float(np.mean(np.abs(error) / truth)),
        "sq_rel": float(np.mean(error**2 / truth)),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "rmse_log": float(np.sqrt(np.mean(error_log**2))),
        "log10": float(np.mean(np.abs(error_log)) / np.log(10)),
        "silog": float(np.sqrt(np.mean(error_log**2) - np.mean(error_log) ** 2 / 2)),
    }


def mean_errors(errors: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each error over images, as in the literature. There must be at least one image."""
    return {name: float(np.mean([error[name] for error in errors])) for name in errors[0]}
