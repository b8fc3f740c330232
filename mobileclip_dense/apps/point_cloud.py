"""Point clouds from depth and colours, with a pinhole camera, as PLY files."""

from dataclasses import dataclass
from math import radians, tan
from pathlib import Path

import numpy as np
import numpy.typing as npt

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera. Focal lengths and the optical centre in pixels; the centre of the top left pixel is (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_field_of_view(cls, degrees: float, height_px: int, width_px: int) -> "Camera":
        """A camera with square pixels and a centred axis, from its horizontal field of view."""
        focal = width_px / 2 / tan(radians(degrees) / 2)
        return cls(fx=focal, fy=focal, cx=(width_px - 1) / 2, cy=(height_px - 1) / 2)


def back_project(depth_m: npt.NDArray[np.floating], camera: Camera) -> npt.NDArray[np.float32]:
    """Depth along the optical axis [H,W] -> points float32 [H,W,3], metres: x right, y down, z forward."""
    rows, columns = np.indices(depth_m.shape, dtype=np.float32)
    x = (columns - camera.cx) / camera.fx * depth_m
    y = (rows - camera.cy) / camera.fy * depth_m
    return np.stack([x, y, depth_m], axis=-1).astype(np.float32)


def save_ply(path: Path, depth_m: npt.NDArray[np.floating], image: npt.NDArray[np.uint8], camera: Camera) -> None:
    """Write the pixels that have a depth (above 0) as a binary PLY: float x, y, z in metres, uchar red, green, blue.

    Args:
        depth_m: [H,W]. image: uint8 [H,W,3].
    """
    known = depth_m > 0
    vertices = np.empty(int(known.sum()), _VERTEX)
    vertices["xyz"], vertices["rgb"] = back_project(depth_m, camera)[known], image[known]
    properties = [f"property float {axis}" for axis in "xyz"]
    properties += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}", *properties, "end_header"]
    path.write_bytes(("\n".join(header) + "\n").encode("ascii") + vertices.tobytes())
