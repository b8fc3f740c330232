"""Our metrics against independent implementations: direct computation, mmsegmentation and torchmetrics."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mmseg.evaluation import DepthMetric, IoUMetric
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from mobileclip_dense.artifact.metrics import SegmentationScore, depth_errors
from mobileclip_dense.dense.evaluation.metrics import DepthErrors, IoUScore

Maps = npt.NDArray[np.uint8]


def random_maps(num_images: int = 3) -> tuple[Maps, Maps]:
    """Predictions and truths [N,20,30] of five classes, the truth with pixels of no class."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (num_images, 20, 30)).astype(np.uint8)
    found = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 5, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    return found, truth


def random_depth(height: int = 20, width: int = 30) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A prediction and a truth in metres; some pixels have no reading, others are beyond 10 m."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 12, (height, width)).astype(np.float32)
    truth[rng.random(truth.shape) < 0.1] = 0
    return (truth * rng.uniform(0.4, 2.5, truth.shape) + 0.1).astype(np.float32), truth


def fill(metric: IoUScore | IoUMetric, found: Maps, truth: Maps) -> None:
    metric.dataset_meta = {"classes": tuple("abcde")}
    for a, b in zip(found, truth, strict=True):
        sample = {
            "pred_sem_seg": {"data": torch.from_numpy(a)[None]},
            "gt_sem_seg": {"data": torch.from_numpy(b)[None]},
        }
        metric.process({}, [sample])


def fill_depth(metric: DepthErrors | DepthMetric, found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
    maps = {"pred_depth_map": found, "gt_depth_map": truth}
    metric.process({}, [{name: {"data": torch.from_numpy(values)[None]} for name, values in maps.items()}])


def test_segmentation_figures_are_those_of_torchmetrics() -> None:
    found, truth = random_maps()
    score = SegmentationScore(num_classes=5)
    for a, b in zip(found, truth, strict=True):
        score.add(a, b)
    maps = torch.from_numpy(found).long(), torch.from_numpy(truth).long()
    expected = {
        "mIoU": multiclass_jaccard_index(*maps, 5, ignore_index=255),
        "aAcc": multiclass_accuracy(*maps, 5, average="micro", ignore_index=255),
        "mAcc": multiclass_accuracy(*maps, 5, average="macro", ignore_index=255),
    }
    for name, value in score.figures().items():
        assert value / 100 == pytest.approx(float(expected[name]), abs=1e-6)  # theirs is float32


def test_segmentation_figures_are_those_of_mmseg_and_are_not_rounded() -> None:
    found, truth = random_maps()
    ours, theirs = IoUScore(), IoUMetric()
    fill(ours, found, truth)
    fill(theirs, found, truth)
    figures, expected = ours.evaluate(len(found)), theirs.evaluate(len(found))
    assert figures.keys() == expected.keys()
    for name, value in figures.items():
        assert value == pytest.approx(expected[name], abs=0.00501)  # mmseg rounds to 2 digits
        assert value != round(value, 2)


def test_processes_with_a_part_each_give_the_figures_of_one_with_all() -> None:
    """mmengine interleaves the results of the processes, and drops those that its sampler repeated at the end."""
    found, truth = random_maps()
    whole, first, second = IoUScore(), IoUScore(), IoUScore()
    fill(whole, found, truth)
    fill(first, found[0::2], truth[0::2])
    fill(second, found[[1, 0]], truth[[1, 0]])  # three images in two processes: the first is repeated
    collected = [entry for pair in zip(first.results, second.results, strict=True) for entry in pair]
    assert first.compute_metrics(collected[:3]) == whole.evaluate(3)
    assert first.compute_metrics(collected) != first.compute_metrics(collected[:3])


def by_definition(
    found: npt.NDArray[np.float32], truth: npt.NDArray[np.float32], max_depth_m: float
) -> dict[str, float]:
    """Pixel by pixel in Python's floats (which are float64)."""
    pairs = [(float(p), float(t)) for p, t in zip(found.flat, truth.flat, strict=True) if 0 < t < max_depth_m]
    number = len(pairs)
    logs = [math.log(p / t) for p, t in pairs]
    return {
        **{f"d{k}": sum(max(p / t, t / p) < 1.25**k for p, t in pairs) / number for k in (1, 2, 3)},
        "abs_rel": sum(abs(p - t) / t for p, t in pairs) / number,
        "sq_rel": sum((p - t) ** 2 / t for p, t in pairs) / number,
        "rmse": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / number),
        "rmse_log": math.sqrt(sum(e**2 for e in logs) / number),
        "log10": sum(abs(math.log10(p / t)) for p, t in pairs) / number,
        "silog": math.sqrt(sum(e**2 for e in logs) / number - 0.5 * (sum(logs) / number) ** 2),
    }


def test_depth_errors_are_those_of_their_definition() -> None:
    found, truth = random_depth()
    errors, expected = depth_errors(found, truth, 10.0), by_definition(found, truth, 10.0)
    assert errors.keys() == expected.keys()
    for name, value in expected.items():
        assert errors[name] == pytest.approx(value, abs=1e-9), name
    assert 0 < errors["d1"] < errors["d2"] < errors["d3"] < 1


def test_depth_errors_are_those_of_mmseg_averaged_over_images() -> None:
    ours, theirs = DepthErrors(max_depth_m=10.0), DepthMetric(max_depth_eval=10.0)
    found, truth = random_depth()
    for a, b in ((found, truth), (found[:7] * 1.3, truth[:7])):
        fill_depth(ours, a, b)
        fill_depth(theirs, a, b)
    expected = theirs.evaluate(2)
    figures = ours.evaluate(2)
    assert figures.keys() == expected.keys()
    for name, value in figures.items():
        assert value == pytest.approx(expected[name], rel=2e-5), name  # theirs is float32


def test_the_eigen_crop_is_rows_45_to_471_and_columns_41_to_601_of_nyuv2() -> None:
    found, truth = random_depth(480, 640)
    errors = depth_errors(found, truth, 10.0, eigen_crop=True)
    assert errors == depth_errors(found[45:471, 41:601], truth[45:471, 41:601], 10.0)
    assert errors != depth_errors(found, truth, 10.0)
    metric = DepthErrors(max_depth_m=10.0, eigen_crop=True)
    fill_depth(metric, found, truth)
    assert metric.evaluate(1) == errors
    with pytest.raises(ValueError, match="found a map of 20x30, expected 480x640"):
        depth_errors(*random_depth(), 10.0, eigen_crop=True)


def test_a_prediction_of_no_depth_is_far_off_and_finite() -> None:
    errors = depth_errors(np.zeros((2, 2)), np.full((2, 2), 3.0), 10.0)
    assert errors["rmse"] == 3
    assert errors["d3"] == 0
    assert all(map(math.isfinite, errors.values()))
