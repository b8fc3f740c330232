"""Resizing of images in ML programs, against the grid points in the MIL documentation."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from tests.deploy.test_mil_operators import IOS15, IOS16, Array, X, build_program, check, run


def sampled(x: Array, heights: list[float], widths: list[float]) -> Array:
    """Linear interpolation at grid points, both lists in pixels of x, before min(Xin - 1, max(0, .))."""
    out = np.zeros((*x.shape[:-2], len(heights), len(widths)))
    for (i, h), (j, w) in itertools.product(enumerate(heights), enumerate(widths)):
        h, w = (min(size - 1, max(0.0, v)) for size, v in zip(x.shape[-2:], (h, w), strict=True))
        top, left = int(h), int(w)
        bottom, right = min(top + 1, x.shape[-2] - 1), min(left + 1, x.shape[-1] - 1)
        upper = x[..., top, left] * (left + 1 - w) + x[..., top, right] * (w - left)
        lower = x[..., bottom, left] * (left + 1 - w) + x[..., bottom, right] * (w - left)
        out[..., i, j] = upper * (top + 1 - h) + lower * (h - top)
    return out


def grid(mode: str, num_in: int, num_out: int) -> list[float]:
    """The documentation's grid points, formula by formula."""
    if mode == "STRICT_ALIGN_CORNERS" or (mode == "ALIGN_CORNERS" and num_out > 1):
        return [i * (num_in - 1) / (num_out - 1) for i in range(num_out)]
    if mode == "ALIGN_CORNERS":
        return [(num_in - 1) / 2]
    if mode == "DEFAULT":
        return [i * (num_in - num_in / num_out) / (num_out - 1) for i in range(num_out)]
    if mode == "OFFSET_CORNERS":
        delta = max(1, num_in - 1) / num_out
        return [0.5 * delta + i * ((num_out - 1) * delta) / (num_out - 1) for i in range(num_out)]
    spacing = num_in / num_out
    return [i * spacing + 0.5 * spacing - 0.5 for i in range(num_out)]


@pytest.mark.parametrize("size", [(9, 7), (2, 3), (4, 5)])
@pytest.mark.parametrize(
    "mode", ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"]
)
def test_resize_bilinear_samples_where_its_mode_says(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    check(tmp_path, "resize_bilinear",
          lambda x: mb.resize_bilinear(x=x, target_size_height=height, target_size_width=width, sampling_mode=mode),
          lambda x: sampled(x, grid(mode, 4, height), grid(mode, 5, width)), X, target=IOS15)  # fmt: skip


def test_one_aligned_pixel_is_the_middle(tmp_path: Path) -> None:
    check(tmp_path, "resize_bilinear",
          lambda x: mb.resize_bilinear(x=x, target_size_height=1, target_size_width=1, sampling_mode="ALIGN_CORNERS"),
          lambda x: sampled(x, [1.5], [2.0]), X, target=IOS15)  # fmt: skip


@pytest.mark.parametrize("centers", [None, "opposite"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("factors", [(2.0, 3.0), (1.3, 2.5), (4, 1)])
def test_upsample_bilinear_scales_by_the_output_size(
    factors: tuple[float, float], aligned: bool, centers: str | None, tmp_path: Path
) -> None:
    more = {} if centers is None else {"half_pixel_centers": not aligned}
    height, width = math.floor(factors[0] * 4), math.floor(factors[1] * 5)
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS"
    check(tmp_path, "upsample_bilinear",
          lambda x: mb.upsample_bilinear(x=x, scale_factor_height=factors[0], scale_factor_width=factors[1],
                                         align_corners=aligned, **more),
          lambda x: sampled(x, grid(mode, 4, height), grid(mode, 5, width)), X, target=IOS16)  # fmt: skip


def test_nearest_neighbours_repeat_pixels(tmp_path: Path) -> None:
    for folder in ("upsample", "resize"):
        (tmp_path / folder).mkdir()
    check(tmp_path / "upsample", "upsample_nearest_neighbor",
          lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
          lambda x: np.stack([np.stack([x[..., i // 2, j // 3] for j in range(15)], -1) for i in range(8)], -2),
          X, target=IOS15)  # fmt: skip
    check(tmp_path / "resize", "resize_nearest_neighbor",
          lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=3, target_size_width=10),
          lambda x: np.stack([np.stack([x[..., i * 4 // 3, j // 2] for j in range(10)], -1) for i in range(3)], -2),
          X, target=IOS15)  # fmt: skip


def test_uses_that_mil_does_not_define_are_refused_by_name(tmp_path: Path) -> None:
    build = lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=1.5, scale_factor_width=1.0, name="up")  # noqa: E731
    program = build_program(tmp_path, build, [X])
    with pytest.raises(
        ValueError, match=r"model\.mlpackage: operator upsample_nearest_neighbor of output 'up': .*1\.5"
    ):
        run(program, X)
