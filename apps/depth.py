"""`python -m apps.depth ARTIFACT IMAGE...`: depth of photographs in colours and metres. ONNX Runtime, no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro

from apps.drawing import add_depth_scale
from apps.files import draw_each
from benchmarks.accuracy import predict_at
from benchmarks.runtimes import load_onnx_artifact
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.contract.palette import colour_depth


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """Draw the depth of photographs: colours from near (red) to far (blue) with a scale, beside the photograph."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """ONNX artifact of a depth estimator."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files, 8-bit RGB."""
    out: Path = Path("pictures")
    """Folder for NAME-depth.png."""
    force: bool = False
    """Replace pictures that exist."""


def depth(config: DepthConfig) -> None:
    """Draw every image.

    Raises:
        FileNotFoundError, ValueError: the artifact is damaged or for another task, or an image could not be used.
    """
    artifact, model = load_onnx_artifact(config.artifact)
    if artifact.task != "depth":
        raise ValueError(f"{config.artifact}: task: found {artifact.task}, expected depth; try apps.{artifact.task}")

    def draw(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], str]:
        metres = predict_at(model, "depth_m", image, artifact.input_size_px).astype(np.float32)
        near, far = (float(value) for value in np.percentile(metres, (1, 99)))
        picture = np.concatenate([image, colour_depth(metres, near, far)], axis=1)
        return add_depth_scale(picture, near, far), f"{near:.1f} to {far:.1f} m"

    draw_each(config.images, config.out, "depth", config.force, draw)


if __name__ == "__main__":
    run_with_settings(DepthConfig, depth, "python -m apps.depth")
