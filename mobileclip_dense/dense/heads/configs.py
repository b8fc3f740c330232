"""The parts that the configs of all mmsegmentation heads share, and the configs of a head by its name."""

import os
import pkgutil
from typing import Any

import torch

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.heads import HEADS
from mobileclip_dense.models.encoders import Encoder

DROPOUT = 0.1


def head_configs(config: FinetuneConfig, encoder: Encoder, num_classes: int) -> dict[str, dict[str, Any]]:
    """The configs of an mmseg segmentor on `encoder`: decode_head and, if the head uses them, neck, auxiliary_head."""
    configs: dict[str, dict[str, Any]] = pkgutil.resolve_name(HEADS[config.head].builder)(config, encoder, num_classes)
    return configs


def decode_head_config(
    config: FinetuneConfig, encoder: Encoder, num_classes: int, *, segment: str | None = None, depth: str | None = None
) -> dict[str, Any]:
    """The settings that all heads on the maps of `encoder` share. The head's builder adds its own.

    Args:
        segment, depth: the type of the head in mmseg's registry, for each task.
    """
    head = dict(
        type=segment if config.task == "segment" else depth,
        in_channels=list(encoder.channels),
        in_index=list(range(len(encoder.channels))),
        norm_cfg=_norm_config(),
        align_corners=False,
    )
    if config.task == "segment":
        return head | dict(num_classes=num_classes, ignore_index=IGNORE_INDEX, loss_decode=cross_entropy_config(1.0))
    return head | dict(max_depth=config.max_depth_m, loss_decode=dict(type="SiLogLoss"))


def cross_entropy_config(weight: float) -> dict[str, Any]:
    """Cross entropy: the mean over the pixels that are not ignored, times `weight`."""
    return dict(type="CrossEntropyLoss", avg_non_ignore=True, loss_weight=weight)


def _norm_config() -> dict[str, Any]:
    """SyncBN if several GPU processes train, otherwise BN. The names of their parameters are the same."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available()
    return dict(type="SyncBN" if several else "BN", requires_grad=True)
