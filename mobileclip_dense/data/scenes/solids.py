"""The solids of the generated scenes: convex bodies, each an intersection of half-spaces and at most one quadric.

A solid is defined in its unit frame (about [-1, 1] on each axis, y up). A rotation around y, a scale per axis and a
translation place it in the world. One routine intersects rays with all solids: a line intersects a convex body in a
single interval, from the last entry to the first exit of its constraints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_CAPS = [(0, 1, 0, 1), (0, -1, 0, 1)]


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A convex body.

    Attributes:
        planes: float32 [K,4], rows (nx, ny, nz, d) of the constraints n.x <= d.
        quadric: (qx, qy, qz, ly, c) of the constraint qx x^2 + qy y^2 + qz z^2 + ly y + c <= 0; None if there is none.
        height: extent along y relative to the horizontal extent.
    """

    planes: FloatArray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    quadric: tuple[float, float, float, float, float] | None = None
    height: float = 1.0


def _planes(rows: Sequence[tuple[float, float, float, float]]) -> FloatArray:
    planes = np.array(rows, np.float32)
    return planes / np.linalg.norm(planes[:, :3], axis=1, keepdims=True)


def _column(num_sides: int) -> FloatArray:
    angles = np.arange(num_sides) * 2 * np.pi / num_sides
    apothem = np.cos(np.pi / num_sides)
    sides = [(float(np.cos(a)), 0.0, float(np.sin(a)), float(apothem)) for a in angles]
    return _planes([*sides, *_CAPS])


SOLIDS: dict[str, Solid] = {
    "sphere": Solid(quadric=(1, 1, 1, 0, -1)),
    "dome": Solid(quadric=(1, 0.25, 1, 0.5, -0.75), planes=_planes([(0, -1, 0, 1)]), height=0.6),
    "barrel": Solid(quadric=(1, 0.5, 1, 0, -1), planes=_planes(_CAPS), height=1.3),
    "cylinder": Solid(quadric=(1, 0, 1, 0, -1), planes=_planes(_CAPS), height=1.4),
    "cone": Solid(quadric=(1, -0.25, 1, 0.5, -0.25), planes=_planes(_CAPS), height=1.3),
    "cube": Solid(
        planes=_planes([(1, 0, 0, 0.8), (-1, 0, 0, 0.8), (0, 0, 1, 0.8), (0, 0, -1, 0.8), *_CAPS]), height=0.8
    ),
    "pyramid": Solid(
        planes=_planes([(2, 1, 0, 1), (-2, 1, 0, 1), (0, 1, 2, 1), (0, 1, -2, 1), (0, -1, 0, 1)]), height=1.1
    ),
    "prism": Solid(planes=_column(3), height=1.1),
    "wedge": Solid(
        planes=_planes([(1, 1, 0, 0), (-1, 0, 0, 1), (0, 0, 1, 0.7), (0, 0, -1, 0.7), (0, -1, 0, 1)]), height=0.7
    ),
    "diamond": Solid(planes=_planes([(x, y, z, 1) for x in (1, -1) for y in (1, -1) for z in (1, -1)]), height=1.4),
    "pillar": Solid(planes=_column(6), height=2.2),
}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A solid placed in the world: x right, y up, z forward, in metres; yaw in radians around y."""

    solid: Solid
    centre: FloatArray  # [3]
    scale: FloatArray  # [3], half extents in metres
    yaw: float

    @property
    def bounding_radius_m(self) -> float:
        return float(np.linalg.norm(self.scale))

    def rotation(self) -> FloatArray:
        """The rotation from local to world coordinates, float32 [3,3]."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)

    def to_local(self, points: FloatArray, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """World points [P or 1,3] and directions [P,3] in the unit frame. The ray parameter t does not change."""
        to_unit = self.rotation() / self.scale
        return (points - self.centre) @ to_unit, directions @ to_unit


def may_hit(placed: Placed, origins: FloatArray, directions: FloatArray) -> npt.NDArray[np.intp]:
    """Indices of the rays (origins [P or 1,3], unit directions [P,3]) that hit the bounding sphere in front of them."""
    to_centre = placed.centre - origins
    along = np.einsum("pc,pc->p", np.broadcast_to(to_centre, directions.shape), directions)
    radius = placed.bounding_radius_m
    miss_squared = np.einsum("pc,pc->p", to_centre, to_centre) - along * along
    return np.flatnonzero((miss_squared <= radius * radius) & (along > -radius))


def intersect(placed: Placed, origins: FloatArray, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intersect rays with a solid.

    Args:
        placed: the solid.
        origins: float32 [P,3] or [1,3], metres.
        directions: float32 [P,3].

    Returns:
        enter, leave: ray parameters float32 [P], in units of the direction's length. A ray misses if enter >= leave.
    """
    o, d = placed.to_local(origins, directions)
    enter = np.full(len(d), -np.inf, np.float32)
    leave = np.full(len(d), np.inf, np.float32)
    solid = placed.solid
    for plane in solid.planes:
        rate = d @ plane[:3]
        t = (plane[3] - o @ plane[:3]) / np.where(np.abs(rate) < 1e-9, np.float32(1e-9), rate)
        np.maximum(enter, t, out=enter, where=rate < 0)
        np.minimum(leave, t, out=leave, where=rate >= 0)
    if solid.quadric is not None:
        first, last = _intersect_quadric(solid.quadric, o, d)
        enter, leave = np.maximum(enter, first), np.minimum(leave, last)
    return enter, leave


def _intersect_quadric(
    quadric: tuple[float, float, float, float, float], o: FloatArray, d: FloatArray
) -> tuple[FloatArray, FloatArray]:
    diagonal, slope, constant = np.array(quadric[:3], np.float32), np.float32(quadric[3]), np.float32(quadric[4])
    weighted = d * diagonal
    a = np.einsum("pc,pc->p", weighted, d)
    half_b = np.einsum("pc,pc->p", weighted, np.broadcast_to(o, d.shape)) + slope / 2 * d[:, 1]
    c = (o * o) @ diagonal + slope * o[:, 1] + constant
    a = np.where(np.abs(a) < 1e-7, np.float32(1e-7), a)
    discriminant = half_b * half_b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    low, high = (-half_b - root) / a, (-half_b + root) / a
    # The leading term is negative only for the double cone: the ray crosses both nappes and is inside the quadric
    # outside of [high, low]. The caps select the lower nappe, so the result is the half-line on that side.
    cone = a < 0
    downward = d[:, 1] < 0
    first = np.where(cone, np.where(downward, low, -np.inf), low)
    last = np.where(cone, np.where(downward, np.inf, high), high)
    miss = discriminant < 0
    return np.where(miss, np.float32(np.inf), first), np.where(miss, np.float32(-np.inf), last)


def normals_at(placed: Placed, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Outward unit normals at surface points [P,3], and the points in the unit frame (for textures). Both are [P,3]."""
    local = (points - placed.centre) @ (placed.rotation() / placed.scale)
    solid = placed.solid
    distances, gradients = [], []
    for plane in solid.planes:
        distances.append(local @ plane[:3] - plane[3])
        gradients.append(np.broadcast_to(plane[:3], local.shape))
    if solid.quadric is not None:
        diagonal = np.array(solid.quadric[:3], np.float32)
        gradient = 2 * local * diagonal
        gradient[:, 1] += solid.quadric[3]
        value = (local * local) @ diagonal + solid.quadric[3] * local[:, 1] + solid.quadric[4]
        distances.append(value / np.maximum(np.linalg.norm(gradient, axis=1), 1e-6))
        gradients.append(gradient)
    # The point lies on the constraint with the largest (least negative) distance.
    active = np.argmax(np.stack(distances), axis=0)
    gradient = np.stack(gradients)[active, np.arange(len(local))]
    world = (gradient / placed.scale) @ placed.rotation().T
    return (world / np.maximum(np.linalg.norm(world, axis=1, keepdims=True), 1e-9)).astype(np.float32), local
