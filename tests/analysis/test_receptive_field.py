import math

import pytest
import torch
from torch import nn

from mobileclip_dense.analysis.receptive_field import field_radius, receptive_fields


def convolution(weight: torch.Tensor, **options: int) -> nn.Conv2d:
    """A convolution of the first colour only: weight [out,k,k]."""
    layer = nn.Conv2d(3, len(weight), weight.shape[-1], bias=False, **options)
    layer.weight.data = torch.stack([torch.stack([kernel, 0 * kernel, 0 * kernel]) for kernel in weight])
    return layer.requires_grad_(False)


def test_the_field_of_a_convolution_is_its_squared_kernel() -> None:
    kernel = torch.tensor([[1.0, 2, 1], [2, -4, 2], [1, 2, 1]])
    layer = convolution(kernel[None], padding=1)
    (field,) = receptive_fields(lambda image: [layer(image)], [torch.rand(1, 3, 9, 9)] * 2)
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[3:6, 3:6] = (kernel**2 / (kernel**2).sum()).double()
    torch.testing.assert_close(field, expected)


def test_channels_do_not_cancel() -> None:
    kernel = torch.tensor([[0.0, 0, 0], [1, 0, -3], [0, 0, 0]])
    layer = convolution(torch.stack([kernel, -kernel] * 8), padding=1)  # their sum is 0 for every image
    (field,) = receptive_fields(lambda image: [layer(image)], [torch.rand(1, 3, 5, 5)] * 3)
    assert (float(field[2, 1]), float(field[2, 3])) == pytest.approx((0.1, 0.9))


def test_the_radius_encloses_the_asked_share() -> None:
    layer = convolution(torch.ones(1, 3, 3), padding=1)
    (field,) = receptive_fields(lambda image: [layer(image)], [torch.rand(1, 3, 7, 7)])
    assert field_radius(field, (7, 7), 0.95) == pytest.approx(math.sqrt(2))  # all nine ninths
    assert field_radius(field, (7, 7), 5 / 9) == pytest.approx(1)  # the centre and its four neighbours
    assert field_radius(field, (7, 7), 0.1) == 0


def test_the_centre_of_a_patch_is_between_its_pixels() -> None:
    layer = convolution(torch.ones(1, 4, 4), stride=4)
    (field,) = receptive_fields(lambda image: [layer(image)], [torch.rand(1, 3, 16, 24)])
    assert field[8:12, 12:16].sum() == pytest.approx(1)  # unit 2 of 4 rows, 3 of 6 columns
    assert field_radius(field, (4, 6), 1.0) == pytest.approx(math.dist((0, 0), (1.5, 1.5)))


def test_a_map_that_ignores_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="does not depend on the image"):
        receptive_fields(lambda image: [0 * image], [torch.rand(1, 3, 4, 4)])
