"""Predictions for one image, at the image's own size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.palette import colour_depth, overlay_classes

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The class of each pixel.

    Attributes:
        image: the picture, uint8 [H,W,3] RGB. class_map: class indices, uint8 [H,W] (int32 above 256 classes).
        class_names, palette: name and RGB colour of each class.
    """

    image: Pixels
    class_map: npt.NDArray[np.integer]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels, 0..1, by class name; largest first, without absent classes."""
        counts = np.bincount(self.class_map.ravel(), minlength=len(self.class_names))
        order = [int(index) for index in np.argsort(-counts) if counts[index] > 0]
        return {self.class_names[index]: float(counts[index] / self.class_map.size) for index in order}

    def overlay(self) -> Pixels:
        """The image with half-transparent class colours, uint8 [H,W,3]."""
        return overlay_classes(self.image, self.class_map, list(self.palette))


@dataclass(frozen=True, kw_only=True)
class Depth:
    """The distance of each pixel along the optical axis.

    Attributes:
        image: the picture, uint8 [H,W,3] RGB. depth_m: metres, float32 [H,W].
    """

    image: Pixels
    depth_m: npt.NDArray[np.float32]

    def colours(self, range_m: tuple[float, float] | None = None) -> Pixels:
        """Colours from near (red) to far (dark blue), uint8 [H,W,3].

        Args:
            range_m: the nearest and the farthest distance; None: the 1st and 99th percentile of this map.
        """
        near, far = range_m or (float(value) for value in np.percentile(self.depth_m, (1, 99)))
        return colour_depth(self.depth_m, near, far)


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Objects with their boxes and masks, highest score first.

    Attributes:
        image: the picture, uint8 [H,W,3] RGB. boxes: corners x, y, x, y in pixels, float32 [N,4].
        labels: class indices, int64 [N]. scores: 0..1, float32 [N]. masks: bool [N,H,W].
        class_names: by class index.
    """

    image: Pixels
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """The vector of an image in CLIP's space.

    Attributes:
        vector: of unit norm, float32 [D].
    """

    vector: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How well each prompt describes an image (zero-shot classification).

    Attributes:
        probabilities: by prompt, 0..1; they sum to 1.
    """

    probabilities: dict[str, float]

    @property
    def best(self) -> str:
        """The most probable prompt."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def zero_shot(
    image: npt.NDArray[np.float32], texts: npt.NDArray[np.float32], prompts: Sequence[str], logit_scale: float
) -> Labels:
    """softmax(logit_scale * cosines) (CLIP, arXiv 2103.00020).

    Args:
        image: unit vector [D]. texts: unit vectors [N,D]. prompts: the N texts.
    """
    logits = logit_scale * (texts.astype(np.float64) @ image.astype(np.float64))
    weights = np.exp(logits - logits.max())
    return Labels(probabilities=dict(zip(prompts, (weights / weights.sum()).tolist(), strict=True)))
