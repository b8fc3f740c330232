"""`python -m apps.segment ARTIFACT IMAGE...`: classes drawn over photographs. ONNX Runtime, no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro

from apps.drawing import add_legend
from apps.files import draw_each
from benchmarks.accuracy import predict_at
from benchmarks.runtimes import load_onnx_artifact
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.contract.palette import overlay_classes


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Draw the classes of photographs: an overlay with a legend, at the photograph's resolution."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """ONNX artifact of a segmenter."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files, 8-bit RGB."""
    out: Path = Path("pictures")
    """Folder for NAME-segment.png."""
    force: bool = False
    """Replace pictures that exist."""


def segment(config: SegmentConfig) -> None:
    """Draw every image.

    Raises:
        FileNotFoundError, ValueError: the artifact is damaged or for another task, or an image could not be used.
    """
    artifact, model = load_onnx_artifact(config.artifact)
    if artifact.task != "segment":
        raise ValueError(f"{config.artifact}: task: found {artifact.task}, expected segment; try apps.{artifact.task}")
    palette = list(artifact.palette)

    def draw(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], str]:
        classes = predict_at(model, "class_map", image, artifact.input_size_px).astype(np.int64)
        shares = np.bincount(classes.ravel(), minlength=len(palette)) / classes.size
        order = [int(index) for index in np.argsort(-shares) if shares[index] >= 0.005]
        legend = [(artifact.class_names[index], palette[index], float(shares[index])) for index in order]
        text = ", ".join(f"{name} {share * 100:.0f}%" for name, _, share in legend[:4])
        return add_legend(overlay_classes(image, classes, palette), legend), text

    draw_each(config.images, config.out, "segment", config.force, draw)


if __name__ == "__main__":
    run_with_settings(SegmentConfig, segment, "python -m apps.segment")
