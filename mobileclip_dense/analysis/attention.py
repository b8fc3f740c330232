"""The attention of layers of timm and open_clip, and its mean distance (Dosovitskiy 2021, arXiv 2010.11929, D.7).

Layers do not return their attention, so hooks recompute it from the layer's input and weights. Every call compares the
recomputed output with the layer's own output.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm.layers
import torch
from timm.models import fastvit
from torch import Tensor, nn
from torch.nn import functional

ATTENTION = (timm.layers.Attention, fastvit.Attention, nn.MultiheadAttention)
"""The supported attention layers."""
_TOLERANCE = 1e-5  # of the recomputed output, relative to its largest value


def recompute_attention(layer: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The attention and the output of a layer in evaluation mode.

    Args:
        layer: one of ATTENTION.
        tokens: its input, float [B,N,C]; [B,C,H,W] for FastViT; [N,B,C] for a MultiheadAttention without batch_first.

    Returns:
        The attention softmax(q k^T / sqrt(d)), float [B,heads,query N,key N], and the output in the shape of `tokens`.
    """
    if isinstance(layer, nn.MultiheadAttention):
        rows = tokens if layer.batch_first else tokens.transpose(0, 1)
        projected = functional.linear(rows, layer.in_proj_weight, layer.in_proj_bias)
        attention, mixed = _attend(projected, layer.num_heads)
        output = layer.out_proj(mixed)
        return attention, output if layer.batch_first else output.transpose(0, 1)
    if isinstance(layer, fastvit.Attention):
        attention, mixed = _attend(layer.qkv(tokens.flatten(2).transpose(1, 2)), layer.num_heads)
        return attention, layer.proj(mixed).transpose(1, 2).reshape(tokens.shape)
    attention, mixed = _attend(layer.qkv(tokens), layer.num_heads, layer.q_norm, layer.k_norm)  # type: ignore[operator, arg-type]
    mixed = layer.norm(mixed)  # type: ignore[operator]
    if layer.gate is not None:
        mixed = mixed * layer.gate(tokens).sigmoid()  # type: ignore[operator]
    return attention, layer.proj(mixed)  # type: ignore[operator]


def _attend(
    projected: Tensor, num_heads: int, q_norm: Callable[[Tensor], Tensor] | None = None,
    k_norm: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Concatenated q, k and v, float [B,N,3D] -> attention [B,heads,N,N] and mixed values [B,N,D]."""
    batch, length, width = projected.shape
    q, k, v = projected.reshape(batch, length, 3, num_heads, width // (3 * num_heads)).permute(2, 0, 3, 1, 4)
    q, k = (q_norm(q) if q_norm else q), (k_norm(k) if k_norm else k)
    attention = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return attention, (attention @ v).transpose(1, 2).reshape(batch, length, width // 3)


def attention_layers(blocks: list[nn.Module]) -> list[tuple[int, nn.Module]]:
    """The attention layers inside blocks, each with the index of its block (from 0)."""
    return [(i, layer) for i, block in enumerate(blocks) for layer in block.modules() if isinstance(layer, ATTENTION)]


@contextmanager
def watch_attention(layers: list[nn.Module], seen: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within the context, each forward pass of layer i calls `seen(i, attention)` with attention [B,heads,N,N].

    Raises, in that forward pass:
        ValueError: the layer's output differs from that of the recomputed attention, because the layer uses an
            unsupported form of attention (a mask, a bias).
    """

    def hook(index: int) -> Callable[..., None]:
        def compare(layer: nn.Module, arguments: tuple[Any, ...], _: dict[str, Any], found: Any) -> None:
            attention, output = recompute_attention(layer, arguments[0])
            actual = found[0] if isinstance(found, tuple) else found
            error = float((output - actual).abs().max() / actual.abs().max().clamp(min=1e-12))
            if not error <= _TOLERANCE:
                raise ValueError(f"attention layer {index + 1}, a {type(layer).__name__}: its output differs from that "
                                 f"of plain attention by {error:.1e} of the largest value, expected at most "
                                 f"{_TOLERANCE:.0e}; layers with masks or biases cannot be analyzed")  # fmt: skip
            seen(index, attention)

        return compare

    handles = [layer.register_forward_hook(hook(index), with_kwargs=True) for index, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def grid_of(num_tokens: int, num_prefix_tokens: int, size_px: tuple[int, int]) -> tuple[int, int]:
    """The rows and columns of patches in an image of `size_px` (height, width) with `num_tokens` tokens.

    Raises:
        ValueError: the patches do not form a grid of squares.
    """
    height, width = size_px
    num_patches = num_tokens - num_prefix_tokens
    rows = round((num_patches * height / width) ** 0.5)
    if rows < 1 or num_patches % rows or height * (num_patches // rows) != width * rows:
        raise ValueError(f"attention: found {num_patches} patches of a {height}x{width} image, "
                         "expected a grid of square patches")  # fmt: skip
    return rows, num_patches // rows


def attention_distance(attention: Tensor, grid: tuple[int, int], patch_px: float) -> tuple[Tensor, Tensor]:
    """The mean distance between query and key patch, weighted by attention, per head (arXiv 2010.11929, figure 7).

    Attention to other tokens (the class token) has no distance. It is left out, and the rest of a query's attention is
    scaled to a sum of 1.

    Args:
        attention: float [B,heads,N,N], rows sum to 1. The last rows*columns tokens are the patches, in row order.
        grid: rows and columns.
        patch_px: side of a patch, pixels.

    Returns:
        The distance in pixels, float [heads], mean over queries and images; and the share of the patches' attention to
        other tokens, float [heads].
    """
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centres = torch.stack((y.flatten(), x.flatten()), dim=1).to(attention) * patch_px
    distances = (centres[:, None] - centres).norm(dim=-1)  # N,N
    between = attention[..., -rows * columns :, -rows * columns :]
    on_patches = between.sum(dim=-1)  # B,heads,N
    mean = (between * distances).sum(dim=-1) / on_patches.clamp(min=1e-12)
    return mean.mean(dim=(0, 2)), (1 - on_patches).clamp(min=0).mean(dim=(0, 2))
