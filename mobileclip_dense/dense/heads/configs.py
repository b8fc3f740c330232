"""What stands on an encoder, as mmsegmentation config dictionaries: neck, head, auxiliary head."""

import os
from typing import Any

import torch

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.models.encoders import STRIDES, Encoder

_TYPES = {
    ("semantic_fpn", "segment"): "FPNHead",
    ("semantic_fpn", "depth"): "FPNDepthHead",
    ("fpn_lite", "segment"): "LiteFPNHead",
    ("fpn_lite", "depth"): "LiteFPNDepthHead",
    ("linear", "segment"): "LinearHead",
    ("linear", "depth"): "LinearDepthHead",
    ("upernet", "segment"): "UPerHead",
    ("deconv", "depth"): "DeconvolutionDepthHead",
}
_DROPOUT = 0.1


ON_LAST_MAP = ("linear", "deconv")
"""Heads that stand on a ViT's own last map, not on a pyramid of fresh weights: the probe would be none."""


def head_configs(config: FinetuneConfig, encoder: Encoder, num_classes: int) -> dict[str, dict[str, Any]]:
    """decode_head and, where the head has them, neck and auxiliary_head of an mmseg segmentor on `encoder`."""
    channels = encoder.channels
    head = dict(
        type=_TYPES[config.head, config.task],
        in_channels=list(channels),
        in_index=list(range(len(channels))),
        norm_cfg=_norm_config(),
        align_corners=False,
        **_target(config, num_classes),
    )
    match config.head:
        case "semantic_fpn":  # Kirillov et al. 2019
            head |= dict(in_channels=[config.neck_channels] * len(channels), feature_strides=list(STRIDES),
                         channels=config.head_channels, dropout_ratio=_DROPOUT)  # fmt: skip
            neck = dict(type="FPN", in_channels=list(channels), out_channels=config.neck_channels, num_outs=4)
            return dict(neck=neck, decode_head=head)
        case "fpn_lite":
            head |= dict(channels=config.head_channels, dropout_ratio=_DROPOUT)
        case "upernet":  # as mmseg's configs/_base_/models/upernet_swin.py
            head |= dict(channels=config.head_channels, pool_scales=(1, 2, 3, 6), dropout_ratio=_DROPOUT)
            auxiliary = head | dict(type="FCNHead", in_channels=channels[2], in_index=2, channels=256, num_convs=1,
                                    concat_input=False, loss_decode=_cross_entropy(0.4))  # fmt: skip
            del auxiliary["pool_scales"]
            return dict(decode_head=head, auxiliary_head=auxiliary)
        case "deconv":
            head |= dict(in_channels=channels[-1], in_index=len(channels) - 1, stride=encoder.strides[-1],
                         channels=config.head_channels)  # fmt: skip
    return dict(decode_head=head)


def _target(config: FinetuneConfig, num_classes: int) -> dict[str, Any]:
    """What is predicted, and the loss."""
    if config.task == "segment":
        return dict(num_classes=num_classes, ignore_index=IGNORE_INDEX, loss_decode=_cross_entropy(1.0))
    return dict(max_depth=config.max_depth_m, loss_decode=dict(type="SiLogLoss"))


def _cross_entropy(weight: float) -> dict[str, Any]:
    return dict(type="CrossEntropyLoss", avg_non_ignore=True, loss_weight=weight)


def _norm_config() -> dict[str, Any]:
    """BatchNorm over all processes where several train, each on its GPU; its parameters have the same names."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available()
    return dict(type="SyncBN" if several else "BN", requires_grad=True)
