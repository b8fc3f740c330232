"""`mobileclip-dense depth ARTIFACT INPUT...`: depth of photographs and videos: colours, millimetres, points."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.apps.batch import Demo, Drawn, Outputs, Pixels, load_for, run_batch, save_png
from mobileclip_dense.apps.drawing import add_depth_scale
from mobileclip_dense.apps.inputs import find_inputs
from mobileclip_dense.apps.point_cloud import Camera, save_ply
from mobileclip_dense.apps.samples import SampleConfig
from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.preprocess import resize_image
from mobileclip_dense.config.check import require, require_numbers
from mobileclip_dense.runtime.model import dense_prediction
from mobileclip_dense.runtime.predictions import Depth

Metres = npt.NDArray[np.float32]
_MOST_MM = np.iinfo(np.uint16).max
_MOST_M = 1e6  # largest --range-m; float32 still separates neighbouring colours
_MOST_PX = 1e6  # largest --intrinsics; the points stay finite
_FIELD_OF_VIEW_DEG = (0.1, 179.0)


@dataclass(frozen=True, kw_only=True)
class DepthConfig(SampleConfig):
    """Estimate the depth of photographs. Writes colours from near (red) to far (blue) with a scale beside the
    photograph, millimetres as a 16-bit PNG (at most 65.535 m), and a point cloud on request. A video gives a video."""

    range_m: tuple[float, float] | None = None
    """Nearest and farthest distance of the colours, metres; None: chosen for each photograph, and for a video from its
    first frame."""
    ply: bool = False
    """Write a point cloud too; needs --intrinsics or --field-of-view, which describe the camera."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy of the camera in pixels of the photograph; the centre of the top left pixel is 0 0."""
    field_of_view: float | None = None
    """Horizontal field of view of the camera, degrees; assumes square pixels and a centred optical axis."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "range_m", at_least=0, at_most=_MOST_M)
        require_numbers(self, "intrinsics", at_least=-_MOST_PX, at_most=_MOST_PX)
        require_numbers(self, "field_of_view", at_least=_FIELD_OF_VIEW_DEG[0], at_most=_FIELD_OF_VIEW_DEG[1])
        if self.intrinsics is not None:
            require(self, "intrinsics", min(self.intrinsics[:2]) >= 1 / _MOST_PX, "focal lengths FX and FY above 0")
        if self.range_m is not None:
            require(self, "range_m", self.range_m[0] < self.range_m[1], "a near and a far distance in metres")
        given = [name for name in ("intrinsics", "field_of_view") if getattr(self, name) is not None]
        if len(given) != int(self.ply):
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "neither"
            raise ValueError(f"--ply: found {'' if self.ply else 'no --ply but '}{flags}, expected --ply with one of "
                             f"--intrinsics FX FY CX CY and --field-of-view DEGREES")  # fmt: skip

    def camera_of(self, image: Pixels) -> Camera:
        """The camera that the flags describe."""
        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
            return Camera(fx=fx, fy=fy, cx=cx, cy=cy)
        assert self.field_of_view is not None
        return Camera.from_field_of_view(self.field_of_view, *image.shape[:2])


def depth(config: DepthConfig) -> dict[str, Any]:
    """Process every input: NAME-depth.png, NAME-depth-mm.png (uint16 [H,W]), NAME-depth.ply, depth-summary.json.

    Raises:
        FileNotFoundError, FileExistsError, OSError, ValueError: see `load_for` and `run_batch`; or a point cloud of a
            video was asked for.
    """
    config = config.with_sample("depth")
    if config.ply and (
        moving := [one.source for one in find_inputs(config.inputs, config.out)[0] if one.kind != "image"]
    ):
        raise ValueError(f"--ply: found {moving[0]}, expected photographs only")
    model = load_for(config, "depth")
    return run_batch(config, depth_demo(model.artifact, config), model)


def depth_demo(artifact: Artifact, config: DepthConfig) -> Demo:
    """The demo of a depth estimator; its results are the 1st, 50th and 99th percentile in metres."""
    return Demo(
        name="depth",
        result_name="depth",
        prepare=lambda image: resize_image(image, *artifact.input_size_px),
        new_drawing=partial(_new_drawing, artifact, config),
        suffixes=("-depth.png", "-depth-mm.png", *(("-depth.ply",) if config.ply else ())),
        describe=lambda found: f"{found['near_m']:.2f} to {found['far_m']:.2f} m, median {found['median_m']:.2f} m",
    )


def _new_drawing(artifact: Artifact, config: DepthConfig, moving: bool) -> Callable[[Pixels, Outputs], Drawn]:
    ranges = [config.range_m] if config.range_m is not None else []

    def draw(image: Pixels, outputs: Outputs) -> Drawn:
        near, median, far = (float(value) for value in np.percentile(outputs["depth_m"][0], (1, 50, 99)))
        if moving and not ranges:
            ranges.append((near, far))
        scale = ranges[0] if ranges else (near, far)
        found = dense_prediction(artifact, image, outputs)
        assert isinstance(found, Depth)
        metres = found.depth_m
        picture = np.concatenate([image, found.colours(scale)], axis=1)
        files: dict[str, Callable[[Path], None]] = {
            "-depth-mm.png": lambda path: save_png(in_millimetres(metres), path)
        }
        if config.ply:
            files["-depth.ply"] = lambda path: save_ply(path, metres, image, config.camera_of(image))
        return Drawn(
            picture=add_depth_scale(picture, *scale),
            result={"near_m": near, "median_m": median, "far_m": far},
            files=files,
        )

    return draw


def in_millimetres(metres: Metres) -> npt.NDArray[np.uint16]:
    """Float metres -> uint16 millimetres, rounded; 65.535 m for everything beyond."""
    return np.clip(np.rint(metres * 1000), 0, _MOST_MM).astype(np.uint16)
