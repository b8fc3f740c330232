"""Task metrics in NumPy and float64: the figures of training, evaluation, export and of what runs without torch."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.palette import IGNORE_INDEX

# Of the 480x640 pixels of NYUv2 those on which published figures are taken (Eigen, Puhrsch and Fergus 2014).
EIGEN_CROP = (slice(45, 471), slice(41, 601))
_EIGEN_SIZE_PX = (480, 640)
_SMALLEST_M = 1e-6  # a prediction of zero metres has no logarithm and no ratio


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
        hit = np.diag(self.confusion)
        return _share(hit, self.confusion.sum(0) + self.confusion.sum(1) - hit)

    def accuracy(self) -> npt.NDArray[np.float64]:
        """Share of a class's pixels that are found, per class [num_classes], 0..1; NaN for classes not in the truth."""
        return _share(np.diag(self.confusion), self.confusion.sum(1))

    def miou_percent(self) -> float:
        """Mean over the classes that occur, in percent, as mmsegmentation reports it; NaN if nothing was counted."""
        return _mean_percent(self.iou())

    def figures(self) -> dict[str, float]:
        """In percent, under mmsegmentation's names: mIoU, aAcc (share of all pixels found), mAcc (mean over classes).

        NaN, all of them, if nothing was counted.
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
    """Errors of one depth map [H,W] in metres, over the pixels with 0 < truth < max_depth_m.

    The names and definitions are those of mmsegmentation's DepthMetric; the figures, of Eigen, Puhrsch and Fergus 2014.

    Args:
        eigen_crop: count only the middle of NYUv2's 480x640 pixels.

    Returns:
        d1, d2, d3: share of pixels within a factor of 1.25, 1.25^2, 1.25^3. abs_rel: mean |error| / truth.
        sq_rel: mean error^2 / truth, metres. rmse: root mean squared error, metres. rmse_log: the same of the natural
        logarithm. log10: mean |error| of the decimal logarithm. silog: sqrt(mean(e^2) - mean(e)^2 / 2) with e the
        error of the natural logarithm.

    Raises:
        ValueError: no pixel has a reading, or the map is not 480x640 where the crop is asked for.
    """
    if eigen_crop:
        if truth_m.shape != _EIGEN_SIZE_PX:
            raise ValueError(f"eigen crop: found a map of {truth_m.shape[0]}x{truth_m.shape[1]}, expected 480x640 "
                             "as NYUv2 has it; measure without the crop")  # fmt: skip
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
    """Mean over images of each error, as the literature averages them; of at least one image."""
    return {name: float(np.mean([error[name] for error in errors])) for name in errors[0]}
