"""`mobileclip-dense segment ARTIFACT INPUT...`: draws classes over photographs and videos. No torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mobileclip_dense.apps.batch import Demo, Drawn, Outputs, Pixels, load_for, run_batch, save_png
from mobileclip_dense.apps.drawing import add_legend, describe_shares
from mobileclip_dense.apps.samples import SampleConfig
from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.preprocess import resize_image
from mobileclip_dense.runtime.model import dense_prediction
from mobileclip_dense.runtime.predictions import Segmentation

_MOST_CLASSES = 255
_SMALLEST_SHARE = 0.005  # of the picture, for a class to be in the legend
_ROWS_IN_VIDEO = 2  # of the legend: all frames of a video have one size


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(SampleConfig):
    """Find the classes of photographs. Writes an overlay with a legend, class indices as an 8-bit PNG, and the share of
    each class, all at the photograph's own resolution. A video gives a video."""


def segment(config: SegmentConfig) -> dict[str, Any]:
    """Process every input: NAME-segment.png, NAME-classes.png (uint8 [H,W] class indices), segment-summary.json.

    Raises:
        FileNotFoundError, FileExistsError, OSError, ValueError: see `load_for` and `run_batch`.
    """
    config = config.with_sample("segment")
    model = load_for(config, "segment")
    if len(model.artifact.class_names) > _MOST_CLASSES:
        raise ValueError(f"{config.artifact}: class_names: found {len(model.artifact.class_names)}, expected at most "
                         f"{_MOST_CLASSES}: class indices are written as 8 bits")  # fmt: skip
    return run_batch(config, segment_demo(model.artifact), model)


def segment_demo(artifact: Artifact) -> Demo:
    """The demo of a segmenter; its results are shares (0..1) by class name, without absent classes."""
    return Demo(
        name="segment",
        result_name="class_shares",
        prepare=lambda image: resize_image(image, *artifact.input_size_px),
        new_drawing=partial(_new_drawing, artifact),
        suffixes=("-segment.png", "-classes.png"),
        describe=lambda shares: describe_shares(shares, 4),
    )


def _new_drawing(artifact: Artifact, moving: bool) -> Callable[[Pixels, Outputs], Drawn]:
    colours = dict(zip(artifact.class_names, artifact.palette, strict=True))

    def draw(image: Pixels, outputs: Outputs) -> Drawn:
        found = dense_prediction(artifact, image, outputs)
        assert isinstance(found, Segmentation)
        shares, classes = found.shares, found.class_map.astype(np.uint8, copy=False)
        legend = [(name, colours[name], share) for name, share in shares.items() if share >= _SMALLEST_SHARE]
        return Drawn(
            picture=add_legend(found.overlay(), legend, _ROWS_IN_VIDEO if moving else None),
            result=shares,
            files={"-classes.png": lambda path: save_png(classes, path)},
        )

    return draw
