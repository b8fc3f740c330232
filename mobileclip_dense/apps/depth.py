"""`python -m apps.depth ARTIFACT INPUT...`: depth of photographs and videos, in colours, millimetres and as points."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.apps.batch import BatchConfig, Demo, Drawn, Outputs, Pixels, load_for, run_batch, save_png
from mobileclip_dense.apps.drawing import add_depth_scale
from mobileclip_dense.apps.inputs import find_inputs
from mobileclip_dense.apps.point_cloud import Camera, save_ply
from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.palette import colour_depth
from mobileclip_dense.artifact.preprocess import resize_image
from mobileclip_dense.config.check import require, require_numbers
from mobileclip_dense.runtime.accuracy import resize_map

Metres = npt.NDArray[np.float32]
_MOST_MM = np.iinfo(np.uint16).max
_MOST_M = 1e6  # of --range-m: float32 still tells neighbouring colours apart
_MOST_PX = 1e6  # of --intrinsics: the points stay finite
_FIELD_OF_VIEW_DEG = (0.1, 179.0)


@dataclass(frozen=True, kw_only=True)
class DepthConfig(BatchConfig):
    """Estimate the depth of photographs: colours from near (red) to far (blue) with a scale, beside the photograph;
    millimetres as a 16-bit PNG, which ends at 65.535 m; a point cloud on request. A video gives a video."""

    range_m: tuple[float, float] | None = None
    """Nearest and farthest distance of the colours, metres; None: of each photograph its own, of a video its first
    frame's."""
    ply: bool = False
    """Write the point cloud too, for which the camera must be known: give --intrinsics or --field-of-view."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx fy cx cy of the photographs, pixels at their own resolution; the centre of the top left pixel is 0 0."""
    field_of_view: float | None = None
    """Horizontal field of view of the photographs, degrees; for square pixels and a centred optical axis."""

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
        """The camera that took a photograph, as the flags say."""
        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
            return Camera(fx=fx, fy=fy, cx=cx, cy=cy)
        assert self.field_of_view is not None
        return Camera.from_field_of_view(self.field_of_view, *image.shape[:2])


def depth(config: DepthConfig) -> dict[str, Any]:
    """Do every input: NAME-depth.png, NAME-depth-mm.png (uint16 [H,W]), NAME-depth.ply, depth-summary.json.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see `load_for` and `run_batch`; or a point cloud of a video.
    """
    if config.ply and (
        moving := [one.source for one in find_inputs(config.inputs, config.out)[0] if one.kind != "image"]
    ):
        raise ValueError(f"--ply: found {moving[0]}, expected photographs only")
    artifact, model = load_for(config, "depth")
    return run_batch(config, depth_demo(artifact, config), artifact, model)


def depth_demo(artifact: Artifact, config: DepthConfig) -> Demo:
    """The demo of a depth estimator; its results are the 1st, 50th and 99th percentile in metres."""
    return Demo(
        name="depth",
        result_name="depth",
        prepare=lambda image: resize_image(image, *artifact.input_size_px),
        new_drawing=partial(_new_drawing, config),
        suffixes=("-depth.png", "-depth-mm.png", *(("-depth.ply",) if config.ply else ())),
        describe=lambda found: f"{found['near_m']:.2f} to {found['far_m']:.2f} m, median {found['median_m']:.2f} m",
    )


def _new_drawing(config: DepthConfig, moving: bool) -> Callable[[Pixels, Outputs], Drawn]:
    kept = [config.range_m] if config.range_m is not None else []

    def draw(image: Pixels, outputs: Outputs) -> Drawn:
        small = outputs["depth_m"][0].astype(np.float32)
        near, median, far = (float(value) for value in np.percentile(small, (1, 50, 99)))
        if moving and not kept:
            kept.append((near, far))
        scale = kept[0] if kept else (near, far)
        metres = resize_map(small, *image.shape[:2]).astype(np.float32)
        picture = np.concatenate([image, colour_depth(metres, *scale)], axis=1)
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
