"""Points against a case worked out by hand, and the file against the PLY format."""

import struct
from pathlib import Path

import numpy as np
import pytest

from mobileclip_dense.apps.point_cloud import Camera, back_project, save_ply


def test_points_are_where_a_pinhole_camera_saw_them() -> None:
    """Focal lengths 100 and 50 px, centre (1, 0): a pixel 1 px right and 2 px below the axis, 4 m away, is at
    1/100*4 = 0.04 m right and 2/50*4 = 0.16 m down."""
    points = back_project(np.full((3, 4), 4.0), Camera(fx=100, fy=50, cx=1, cy=0))
    np.testing.assert_allclose(points[2, 2], [0.04, 0.16, 4.0], rtol=1e-6)
    np.testing.assert_allclose(points[0, 1], [0, 0, 4.0])
    np.testing.assert_allclose(points[0, 0], [-0.04, 0, 4.0], rtol=1e-6)


def test_a_field_of_view_of_90_degrees_is_seen_as_wide_as_it_is_far() -> None:
    camera = Camera.from_field_of_view(90, 4, 8)
    assert (camera.fx, camera.fy) == (pytest.approx(4), pytest.approx(4))
    points = back_project(np.full((4, 8), 10.0), camera)
    # The outermost pixel centres are half a pixel within the frame: 3.5 of 4 half widths.
    np.testing.assert_allclose(points[0, -1], [8.75, -3.75, 10], rtol=1e-6)
    np.testing.assert_allclose(points.reshape(-1, 3).mean(axis=0), [0, 0, 10], atol=1e-6)


def test_a_ply_file_reads_back_as_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 3, (5, 7)).astype(np.float32)
    depth[1, 2] = 0  # no reading
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    camera = Camera(fx=9, fy=8, cx=3, cy=2)
    save_ply(tmp_path / "cloud.ply", depth, image, camera)
    header, _, body = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header\n")
    assert header.decode("ascii").splitlines() == [
        "ply", "format binary_little_endian 1.0", "element vertex 34", "property float x", "property float y",
        "property float z", "property uchar red", "property uchar green", "property uchar blue",
    ]  # fmt: skip
    read = list(struct.iter_unpack("<3f3B", body))
    known = [(row, column) for row in range(5) for column in range(7) if depth[row, column] > 0]
    assert len(read) == len(known) == 34
    for (x, y, z, *rgb), (row, column) in zip(read, known, strict=True):
        assert z == depth[row, column]
        assert x / z * 9 + 3 == pytest.approx(column, abs=1e-4)
        assert y / z * 8 + 2 == pytest.approx(row, abs=1e-4)
        assert rgb == image[row, column].tolist()
