"""What turns a trunk's maps into the four of the pyramid, where the trunk does not end with them itself."""

import torch
from timm.layers import LayerNorm2d
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, window_partition, window_reverse
from torch import nn

PYRAMID_CHANNELS = 256  # ViTDet's, at every stride


class SimpleFeaturePyramid(nn.ModuleList):
    """The last map of a plain ViT at strides 4, 8, 16 and 32 (ViTDet, arXiv 2203.16527, section 3).

    Each level starts from that one map: two deconvolutions, one, none, a max-pooling; then 1x1 and 3x3 convolution,
    each with LayerNorm over channels, as in ViTDet's code.
    """

    def __init__(self, width: int):
        """Build it for a map of `width` channels."""
        double, quadruple = width // 2, width // 4
        resamplers: list[tuple[list[nn.Module], int]] = [
            ([nn.ConvTranspose2d(width, double, 2, stride=2), LayerNorm2d(double), nn.GELU(),
              nn.ConvTranspose2d(double, quadruple, 2, stride=2)], quadruple),
            ([nn.ConvTranspose2d(width, double, 2, stride=2)], double),
            ([], width),
            ([nn.MaxPool2d(2)], width),
        ]  # fmt: skip
        super().__init__(nn.Sequential(*layers, *_project(channels)) for layers, channels in resamplers)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Maps of which the last is float [B,width,H/16,W/16] -> four float [B,256,H/s,W/s], s = 4, 8, 16, 32."""
        return [level(maps[-1]) for level in self]


def _project(channels: int) -> list[nn.Module]:
    """To the pyramid's channels; no biases, the norms have them."""
    return [
        nn.Conv2d(channels, PYRAMID_CHANNELS, 1, bias=False),
        LayerNorm2d(PYRAMID_CHANNELS),
        nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1, bias=False),
        LayerNorm2d(PYRAMID_CHANNELS),
    ]


class OutputNorms(nn.ModuleList):
    """A LayerNorm over the channels of each map, as mmsegmentation's Swin has them."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__(LayerNorm2d(count, eps=1e-5) for count in channels)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """float [B,C,H,W] each -> the same shapes."""
        return [norm(one) for norm, one in zip(self, maps, strict=True)]


class PadThenShift(SwinTransformerBlock):
    """timm's block on maps that windows do not divide, as the authors' and mmsegmentation's compute it.

    timm shifts first and pads then, so that what went around the edge sits beside the padding and outside the regions
    that the mask keeps apart: weights of mmsegmentation would give other features than there.
    """

    def _attn(self, x: torch.Tensor) -> torch.Tensor:
        """float [B,H,W,C] -> the same."""
        _, height, width, channels = x.shape
        window_height, window_width = self.window_size
        x = nn.functional.pad(x, (0, 0, 0, -width % window_width, 0, -height % window_height))
        _, padded_height, padded_width, _ = x.shape
        shift = self.shift_size
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        mask = self.get_attn_mask(x) if self.dynamic_mask else self.attn_mask
        windows = window_partition(x, self.window_size).flatten(1, 2)
        attended = self.attn(windows, mask=mask).view(-1, window_height, window_width, channels)
        x = window_reverse(attended, self.window_size, padded_height, padded_width)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, :height, :width].contiguous()


def pad_then_shift(trunk: SwinTransformer) -> None:
    """Make every block of a Swin a `PadThenShift`, in place; parameters and keys stay."""
    for module in trunk.modules():
        if isinstance(module, SwinTransformerBlock):
            module.__class__ = PadThenShift
