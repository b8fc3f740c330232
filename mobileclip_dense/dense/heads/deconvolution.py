"""The deconvolution head for depth: Xie et al., Revealing the Dark Secrets of Masked Image Modeling (arXiv 2205.13543).

arXiv 2405.08911 uses this head for its NYUv2 results.
"""

import math
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.decode_heads.vpd_depth_head import VPDDepthDecoder
from mmseg.registry import MODELS
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.heads.configs import decode_head_config
from mobileclip_dense.dense.heads.metric_depth import MetricDepthHead
from mobileclip_dense.models.encoders import Encoder

_SMALLEST_STRIDE = 4
_WIDTH_DIVISOR = 8  # the published width after the deconvolutions is Swin's first width, an eighth of its last


class DeconvolutionHead(BaseDecodeHead):
    """The last map -> one channel at full resolution.

    mmseg's VPDDepthDecoder (2x2 deconvolutions of stride 2 with BatchNorm and ReLU to stride 4, a 3x3 convolution,
    bilinear upsampling by 4), then two 3x3 convolutions.

    Args:
        in_channels: channels of the map.
        channels: channels of the deconvolutions.
        stride: stride of the map, a power of two, at least 8.
        kwargs: arguments of mmseg's `BaseDecodeHead`.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, **kwargs: Any):
        super().__init__(
            in_channels, channels, dropout_ratio=0,
            init_cfg=dict(type="TruncNormal", std=0.02, layer="Conv2d"), **kwargs,
        )  # fmt: skip
        del self.conv_seg
        num_deconvolutions, width = int(math.log2(stride / _SMALLEST_STRIDE)), in_channels // _WIDTH_DIVISOR
        self.decoder = VPDDepthDecoder(in_channels, width, num_deconvolutions, [channels] * num_deconvolutions)
        self.prediction = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, self.out_channels, 3, padding=1)
        )

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Maps, of which the last is float [B,C,h,w] -> float [B,1,stride*h,stride*w]."""
        prediction: torch.Tensor = self.prediction(self.decoder(self._transform_inputs(inputs)))
        return prediction


@MODELS.register_module()
class DeconvolutionDepthHead(MetricDepthHead, DeconvolutionHead):
    """The deconvolution head for depth in metres."""


def build_deconvolution(config: FinetuneConfig, encoder: Encoder, num_classes: int) -> dict[str, dict[str, Any]]:
    """The config of the deconvolution head on the last map."""
    head = decode_head_config(config, encoder, num_classes, depth="DeconvolutionDepthHead")
    last = len(encoder.channels) - 1
    return dict(
        decode_head=head
        | dict(in_channels=encoder.channels[last], in_index=last, stride=encoder.strides[last],
               channels=config.head_channels)
    )  # fmt: skip
