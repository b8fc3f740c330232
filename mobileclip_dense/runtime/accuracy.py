"""Task metrics of models on labelled images: mIoU of class maps, errors of depth maps."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.metrics import SegmentationScore, depth_errors, mean_errors
from mobileclip_dense.artifact.preprocess import resize_image
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.runtime.predictor import Predictor

Map = npt.NDArray[np.generic]


def resize_map(values: Map, height_px: int, width_px: int) -> Map:
    """Resize a map [h,w] to [height_px,width_px]: class indices by nearest neighbour, metres bilinearly."""
    if values.shape == (height_px, width_px):
        return values
    smooth = np.issubdtype(values.dtype, np.floating)
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    picture = Image.fromarray(values.astype(np.float32 if smooth else np.int32))
    return np.asarray(picture.resize((width_px, height_px), method))


def predict_at(model: Predictor, output: str, image: npt.NDArray[np.uint8], size_px: tuple[int, int]) -> Map:
    """Run a model on an image uint8 [H,W,3] of any size. Returns its map `output` at the size of the image, [H,W].

    Args:
        size_px: height and width of the model's input.
    """
    return resize_map(model(resize_image(image, *size_px)[None])[output][0], *image.shape[:2])


def predict_all(model: Predictor, output: str, images: list[Path], size_px: tuple[int, int], label: str) -> list[Map]:
    """Run `predict_at` on image files, with a progress bar."""
    return [predict_at(model, output, load_image(path), size_px) for path in progress_bar(images, label, unit="image")]


def score_segmentation(predictions: list[Map], truths: list[npt.NDArray[np.uint8]], num_classes: int) -> float:
    """The mIoU of class maps [H,W] in percent. Pixels with IGNORE_INDEX in the truth are ignored."""
    score = SegmentationScore(num_classes=num_classes)
    for prediction, truth in zip(predictions, truths, strict=True):
        score.add(prediction.astype(np.int64), truth)
    return score.miou_percent()


def score_depth(predictions: list[Map], truths: list[npt.NDArray[np.float32]], max_depth_m: float) -> dict[str, float]:
    """The errors of `depth_errors`, averaged over depth maps [H,W] in metres."""
    return mean_errors(
        [
            depth_errors(prediction.astype(np.float32), truth, max_depth_m)
            for prediction, truth in zip(predictions, truths, strict=True)
        ]
    )
