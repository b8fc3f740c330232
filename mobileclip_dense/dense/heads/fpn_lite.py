"""A feature-pyramid head for phones: SemanticFPN (Kirillov 2019) without its most expensive, least useful layers."""

from typing import Any

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.heads.configs import DROPOUT, decode_head_config
from mobileclip_dense.dense.heads.metric_depth import MetricDepthHead
from mobileclip_dense.models.encoders import Encoder


@MODELS.register_module()
class LiteFPNHead(BaseDecodeHead):
    """Pyramid -> class scores, in one pass from the coarsest map to the finest.

    A 1x1 convolution projects each map to `channels`. A running sum starts with the coarsest map. At each level, a
    residual separable 3x3 convolution refines the sum, which is then upsampled and added to the next finer map. At the
    finest map, where SemanticFPN has most of its multiply-accumulates, there are only the addition, a ReLU and the
    classifier. One map is upsampled per level instead of two.

    The head has only convolutions, additions, ReLU and bilinear upsampling. Every BatchNorm follows a convolution, and
    every ReLU a convolution or an addition, so that runtimes can fuse them.

    Args:
        in_channels: channels of the maps, finest first.
        channels: channels of the running sum.
        kwargs: arguments of mmseg's `BaseDecodeHead`.
    """

    def __init__(self, in_channels: list[int], channels: int, **kwargs: Any):
        super().__init__(in_channels, channels, input_transform="multiple_select", **kwargs)
        self.laterals = nn.ModuleList(
            ConvModule(width, channels, 1, norm_cfg=self.norm_cfg, act_cfg=None) for width in in_channels
        )
        self.refinements = nn.ModuleList(
            DepthwiseSeparableConvModule(
                channels, channels, 3, padding=1, norm_cfg=self.norm_cfg, dw_act_cfg=self.act_cfg, pw_act_cfg=None
            )
            for _ in in_channels[1:]
        )

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Maps float [B,C_i,h_i,w_i] -> scores float [B,num_classes,h_0,w_0]."""
        maps = [lateral(level) for lateral, level in zip(self.laterals, self._transform_inputs(inputs), strict=True)]
        running = maps.pop()
        for refine in reversed(self.refinements):
            running = running + refine(running)
            finer = maps.pop()
            running = finer + resize(running, size=finer.shape[2:], mode="bilinear", align_corners=self.align_corners)
        scores: torch.Tensor = self.cls_seg(torch.relu(running))
        return scores


@MODELS.register_module()
class LiteFPNDepthHead(MetricDepthHead, LiteFPNHead):
    """The FPN-lite head for depth in metres."""


def build_fpn_lite(config: FinetuneConfig, encoder: Encoder, num_classes: int) -> dict[str, dict[str, Any]]:
    """The config of the FPN-lite head on all maps, without a neck."""
    head = decode_head_config(config, encoder, num_classes, segment="LiteFPNHead", depth="LiteFPNDepthHead")
    return dict(decode_head=head | dict(channels=config.head_channels, dropout_ratio=DROPOUT))


def prunable_convolutions(head: LiteFPNHead) -> list[nn.Conv2d]:
    """The convolutions whose outputs can be pruned: one, because all convolutions share the channels of the sum."""
    lateral: Any = head.laterals[0]
    return [lateral.conv]
