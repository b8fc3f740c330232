"""Intersections of rays and solids, checked by testing points along the ray."""

import numpy as np
import pytest

from mobileclip_dense.data.scenes.solids import SOLIDS, FloatArray, Placed, Solid, intersect, may_hit, normals_at


def inside(solid: Solid, points: FloatArray) -> np.ndarray:
    """Whether points of the unit frame are inside the solid, by definition."""
    result = np.ones(len(points), bool)
    for nx, ny, nz, d in solid.planes:
        result &= points @ np.array([nx, ny, nz]) <= d
    if solid.quadric is not None:
        qx, qy, qz, ly, c = solid.quadric
        x, y, z = points.T
        result &= qx * x**2 + qy * y**2 + qz * z**2 + ly * y + c <= 0
    return result


def place(kind: str) -> Placed:
    return Placed(
        solid=SOLIDS[kind],
        centre=np.array([0.3, 0.5, 4.0], np.float32),
        scale=np.array([0.5, 0.7, 0.4], np.float32),
        yaw=0.7,
    )


def rays(count: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(1)
    origin = np.array([[0, 1.5, 0]], np.float32)
    targets = np.array([0.3, 0.5, 4.0]) + rng.normal(0, 0.5, (count, 3))
    directions = (targets - origin).astype(np.float32)
    return origin, directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", SOLIDS)
def test_entry_and_exit_bound_exactly_the_points_inside(kind: str) -> None:
    placed, (origin, directions) = place(kind), rays(300)
    enter, leave = intersect(placed, origin, directions)
    t = np.linspace(2, 7, 2001)
    for ray in range(len(directions)):
        points = (origin.astype(np.float64) + t[:, None] * directions[ray].astype(np.float64)).astype(np.float64)
        local = (points - placed.centre) @ (placed.rotation() / placed.scale).astype(np.float64)
        walked = t[inside(placed.solid, local)]
        if len(walked) < 3:
            assert leave[ray] - enter[ray] < 0.02
        else:
            assert enter[ray] == pytest.approx(walked[0], abs=0.005)
            assert leave[ray] == pytest.approx(walked[-1], abs=0.005)


@pytest.mark.parametrize("kind", SOLIDS)
def test_bounding_sphere_loses_no_hit(kind: str) -> None:
    placed, (origin, directions) = place(kind), rays(500)
    enter, leave = intersect(placed, origin, directions)
    kept = set(may_hit(placed, origin, directions).tolist())
    assert set(np.flatnonzero(enter < leave).tolist()) <= kept
    assert (enter < leave).sum() > 50


@pytest.mark.parametrize("kind", SOLIDS)
def test_normals_point_out_of_the_body(kind: str) -> None:
    placed, (origin, directions) = place(kind), rays(300)
    enter, leave = intersect(placed, origin, directions)
    hits = enter < leave - 0.02
    points = origin + directions[hits] * enter[hits, None]
    normals, _ = normals_at(placed, points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    to_unit = placed.rotation() / placed.scale
    outside = (points + 0.004 * normals - placed.centre) @ to_unit
    within = (points - 0.004 * normals - placed.centre) @ to_unit
    assert inside(placed.solid, within).mean() > 0.97
    assert not inside(placed.solid, outside).any()
