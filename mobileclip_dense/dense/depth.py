"""Depth in mmsegmentation: a pyramid head that predicts metres."""

from typing import Any

import torch
from mmseg.models.decode_heads import FPNHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


@MODELS.register_module()
class FPNDepthHead(FPNHead):
    """SemanticFPN's head with one output: max_depth x sigmoid, in metres, at the stride of the first map.

    Args:
        max_depth: the largest depth it can predict, metres. Further arguments: as for mmseg's `FPNHead`.
    """

    def __init__(self, max_depth: float, **kwargs: Any):
        super().__init__(num_classes=1, out_channels=1, threshold=0.0, **kwargs)
        self.max_depth = max_depth

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Pyramid -> depth float [B,1,h,w], metres."""
        depth: torch.Tensor = torch.sigmoid(super().forward(inputs)) * self.max_depth
        return depth

    def loss_by_feat(self, depth: torch.Tensor, batch_data_samples: list[SegDataSample]) -> dict[str, torch.Tensor]:
        """Loss over the pixels with a reading below max_depth; ground truth 0 means none."""
        truth = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])
        truth = torch.where(truth > self.max_depth, 0, truth)
        depth = resize(depth, size=truth.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return {self.loss_decode.loss_name: self.loss_decode(depth, truth)}
