"""`python -m apps.segment ARTIFACT INPUT...`: classes drawn over photographs and videos. ONNX Runtime, no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mobileclip_dense.apps.batch import BatchConfig, Demo, Drawn, Outputs, Pixels, load_for, run_batch, save_png
from mobileclip_dense.apps.drawing import add_legend, describe_shares
from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.palette import overlay_classes
from mobileclip_dense.artifact.preprocess import resize_image
from mobileclip_dense.runtime.accuracy import resize_map

_MOST_CLASSES = 255
_SMALLEST_SHARE = 0.005  # of the picture, for a class to be in the legend
_ROWS_IN_VIDEO = 2  # of the legend: all frames of a video have one size


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(BatchConfig):
    """Find the classes of photographs: an overlay with a legend, class indices as an 8-bit PNG, and shares, all at the
    photograph's own resolution. A video gives a video."""


def segment(config: SegmentConfig) -> dict[str, Any]:
    """Do every input: NAME-segment.png, NAME-classes.png (uint8 [H,W] class indices), segment-summary.json.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see `load_for` and `run_batch`.
    """
    artifact, model = load_for(config, "segment")
    if len(artifact.class_names) > _MOST_CLASSES:
        raise ValueError(f"{config.artifact}: class_names: found {len(artifact.class_names)}, expected at most "
                         f"{_MOST_CLASSES}: class indices are written as 8 bits")  # fmt: skip
    return run_batch(config, segment_demo(artifact), artifact, model)


def segment_demo(artifact: Artifact) -> Demo:
    """The demo of a segmenter; its results are shares (0..1) by class name, absent classes left out."""
    return Demo(
        name="segment",
        result_name="class_shares",
        prepare=lambda image: resize_image(image, *artifact.input_size_px),
        new_drawing=partial(_new_drawing, artifact),
        suffixes=("-segment.png", "-classes.png"),
        describe=lambda shares: describe_shares(shares, 4),
    )


def _new_drawing(artifact: Artifact, moving: bool) -> Callable[[Pixels, Outputs], Drawn]:
    palette, names = list(artifact.palette), artifact.class_names

    def draw(image: Pixels, outputs: Outputs) -> Drawn:
        classes = resize_map(outputs["class_map"][0], *image.shape[:2]).astype(np.uint8)
        shares = np.bincount(classes.ravel(), minlength=len(palette)) / classes.size
        order = [int(index) for index in np.argsort(-shares) if shares[index] > 0]
        legend = [(names[i], palette[i], float(shares[i])) for i in order if shares[i] >= _SMALLEST_SHARE]
        return Drawn(
            picture=add_legend(overlay_classes(image, classes, palette), legend, _ROWS_IN_VIDEO if moving else None),
            result={names[index]: float(shares[index]) for index in order},
            files={"-classes.png": lambda path: save_png(classes, path)},
        )

    return draw
