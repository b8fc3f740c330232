"""SemanticFPN (Kirillov et al., Panoptic Feature Pyramid Networks, 2019): mmsegmentation's head, and one for depth."""

from typing import Any

from mmseg.models.decode_heads import FPNHead
from mmseg.registry import MODELS
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.heads.configs import DROPOUT, decode_head_config
from mobileclip_dense.dense.heads.metric_depth import MetricDepthHead
from mobileclip_dense.models.encoders import Encoder


@MODELS.register_module()
class FPNDepthHead(MetricDepthHead, FPNHead):
    """SemanticFPN's head for depth in metres, at the stride of the first map."""


def build_semantic_fpn(config: FinetuneConfig, encoder: Encoder, num_classes: int) -> dict[str, dict[str, Any]]:
    """The configs of a feature pyramid network (neck) and of SemanticFPN's head on its maps."""
    channels = list(encoder.channels)
    neck = dict(type="FPN", in_channels=channels, out_channels=config.neck_channels, num_outs=len(channels))
    head = decode_head_config(config, encoder, num_classes, segment="FPNHead", depth="FPNDepthHead")
    head |= dict(in_channels=[config.neck_channels] * len(channels), feature_strides=list(encoder.strides),
                 channels=config.head_channels, dropout_ratio=DROPOUT)  # fmt: skip
    return dict(neck=neck, decode_head=head)


def prunable_convolutions(head: FPNHead) -> list[nn.Conv2d]:
    """The convolutions whose outputs can be pruned: one for the sum of all scale heads, and those inside them."""
    # A scale head alternates convolution and upsampling. The output of its last convolution is part of the sum.
    between = [block.conv for scale_head in head.scale_heads[2:] for block in list(scale_head)[:-2:2]]
    return [head.scale_heads[0][0].conv, *between]
