"""Adaptive average pooling (used by UPerNet) as two matrix products, which all runtimes compute the same way."""

import torch
from torch import nn


class AveragePooling(nn.Module):
    """nn.AdaptiveAvgPool2d(bins) for maps of any size.

    The window of a bin is a rectangle, so its mean is a product with one matrix for the rows and one for the columns.
    Neither Core ML nor ONNX has this operator; Core ML's converter writes 36 slices and means for 6x6 bins.
    """

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [B,C,H,W] -> float [B,C,bins,bins]."""
        height, width = x.shape[2:]
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            # torch.jit.trace has one fixed size; torch.export keeps a dynamic size symbolic.
            height, width = int(height), int(width)
        rows, columns = _shares(height, self.bins, x), _shares(width, self.bins, x)
        return rows @ x @ columns.T


def _shares(length: int, bins: int, like: torch.Tensor) -> torch.Tensor:
    """[bins,length]: 1 / window size inside the window of each bin, 0 outside, with PyTorch's adaptive windows."""
    position, index = torch.arange(length), torch.arange(bins)[:, None]
    first, behind = index * length // bins, ((index + 1) * length + bins - 1) // bins
    inside = (position >= first) & (position < behind)
    return inside.to(like.dtype) / (behind - first).to(like.dtype)


def make_pooling_exact(model: nn.Module) -> None:
    """Replace nn.AdaptiveAvgPool2d with square outputs by AveragePooling in place, before tracing."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                setattr(module, name, AveragePooling(child.output_size))
