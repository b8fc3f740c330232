"""Adaptive average pooling (UPerNet's) as two matrix products, which every runtime computes alike."""

import torch
from torch import nn


class AveragePooling(nn.Module):
    """The function of nn.AdaptiveAvgPool2d(bins), for any size of map.

    A bin's window is a rectangle, so its mean is a product with one matrix of shares for the rows and one for the
    columns. Core ML has no such operator, and the converter writes 36 slices and means for 6x6 bins; ONNX neither.
    """

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [B,C,H,W] -> float [B,C,bins,bins]."""
        height, width = x.shape[2:]
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            # One size is traced; torch.export keeps a free size as a symbol.
            height, width = int(height), int(width)
        rows, columns = _shares(height, self.bins, x), _shares(width, self.bins, x)
        return rows @ x @ columns.T


def _shares(length: int, bins: int, like: torch.Tensor) -> torch.Tensor:
    """[bins,length]: 1 / size of the window inside it, 0 outside; windows as PyTorch's adaptive pooling cuts them."""
    position, index = torch.arange(length), torch.arange(bins)[:, None]
    first, behind = index * length // bins, ((index + 1) * length + bins - 1) // bins
    inside = (position >= first) & (position < behind)
    return inside.to(like.dtype) / (behind - first).to(like.dtype)


def make_pooling_exact(model: nn.Module) -> None:
    """Replace nn.AdaptiveAvgPool2d of square outputs by AveragePooling, in place, before tracing."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                setattr(module, name, AveragePooling(child.output_size))
