"""The effective receptive field (Luo et al. 2016, arXiv 1701.04128): the pixels that affect the centre of a map."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def receptive_fields(maps_of: Callable[[Tensor], list[Tensor]], images: Iterable[Tensor]) -> list[Tensor]:
    """The squared gradient of the centre of each map with respect to the pixels, mean over images, summed over RGB.

    The sum of a map's channels may be constant (for example after a LayerNorm). The gradient is therefore that of a sum
    with random signs. Its expected square is the sum of the squared gradients of all channels.

    Args:
        maps_of: float [1,3,H,W] -> maps float [1,C,h,w].
        images: inputs of `maps_of`.

    Returns:
        For each map float64 [H,W] with sum 1. The centre is the position h//2, w//2.

    Raises:
        ValueError: a map does not depend on the image.
    """
    generator = torch.Generator().manual_seed(0)
    totals: list[Tensor] = []
    for image in images:
        pixels = image.clone().requires_grad_(True)
        with torch.enable_grad():
            maps = maps_of(pixels)
            totals = totals or [torch.zeros(image.shape[-2:], dtype=torch.float64) for _ in maps]
            for number, found in enumerate(maps):
                centre = found[0, :, found.shape[2] // 2, found.shape[3] // 2]
                signs = torch.randint(0, 2, centre.shape, generator=generator).to(centre) * 2 - 1
                (gradient,) = torch.autograd.grad(centre @ signs, pixels, retain_graph=number + 1 < len(maps))
                totals[number] += gradient[0].double().square().sum(dim=0)
    if not all(float(total.sum()) > 0 for total in totals):
        raise ValueError("receptive field: found a map whose centre does not depend on the image; train the run longer")
    return [total / total.sum() for total in totals]


def field_radius(field: Tensor, grid: tuple[int, int], share: float = 0.95) -> float:
    """The radius in pixels of the smallest disc around the centre that contains `share` of a field [H,W].

    Distances are measured between the centres of pixels and the centre of position h//2, w//2 of a map of `grid` (h, w)
    positions.
    """
    distances = _distances(field, grid).flatten()
    order = distances.argsort()
    held = field.flatten()[order].cumsum(dim=0) / field.sum()
    return float(distances[order][int((held < share - 1e-9).sum())])


def field_centre(size_px: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    """The centre (y, x) of position h//2, w//2 of a map of `grid` (h, w), in pixels from the centre of pixel 0, 0."""
    y, x = ((n // 2 + 0.5) * size / n - 0.5 for size, n in zip(size_px, grid, strict=True))
    return y, x


def _distances(field: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = field.shape
    y, x = field_centre((height, width), grid)
    rows, columns = torch.arange(height).to(field) - y, torch.arange(width).to(field) - x
    return (rows[:, None] ** 2 + columns**2).sqrt()
