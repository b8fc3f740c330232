"""The linear probe: one linear layer on the feature pyramid, to measure the quality of the features."""

from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.heads.configs import decode_head_config
from mobileclip_dense.dense.heads.metric_depth import MetricDepthHead
from mobileclip_dense.models.encoders import Encoder


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """One linear layer on all maps, each channel normalized, upsampled to the finest map and concatenated.

    It is computed map by map: a 1x1 convolution and bilinear upsampling commute, so the sum of the upsampled scores
    equals the linear layer on the much larger concatenated maps. BatchNorm is not affine, because the linear layer
    after it is.

    Args:
        in_channels: channels of the maps, finest first.
        kwargs: arguments of mmseg's `BaseDecodeHead`.
    """

    def __init__(self, in_channels: list[int], **kwargs: Any):
        super().__init__(
            in_channels, sum(in_channels), input_transform="multiple_select", dropout_ratio=0,
            init_cfg=dict(type="Normal", std=0.01, layer="Conv2d"), **kwargs,
        )  # fmt: skip
        del self.conv_seg  # replaced by `probes`, of which only the first has a bias
        self.probes = nn.ModuleList(
            nn.Sequential(
                build_norm_layer({**self.norm_cfg, "affine": False}, width)[1],
                nn.Conv2d(width, self.out_channels, 1, bias=level == 0),
            )
            for level, width in enumerate(in_channels)
        )

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Maps float [B,C_i,h_i,w_i] -> scores float [B,num_classes,h_0,w_0]."""
        scores, *coarser = [
            probe(level) for probe, level in zip(self.probes, self._transform_inputs(inputs), strict=True)
        ]
        for level in coarser:
            scores = scores + resize(level, size=scores.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return scores


@MODELS.register_module()
class LinearDepthHead(MetricDepthHead, LinearHead):
    """The linear probe for depth in metres."""


def build_linear(config: FinetuneConfig, encoder: Encoder, num_classes: int) -> dict[str, dict[str, Any]]:
    """The config of the linear probe on all maps."""
    return dict(
        decode_head=decode_head_config(config, encoder, num_classes, segment="LinearHead", depth="LinearDepthHead")
    )
