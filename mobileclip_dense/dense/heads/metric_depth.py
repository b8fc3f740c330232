"""The base class of depth heads, which predict metres."""

from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample


class MetricDepthHead(BaseDecodeHead):
    """Turns the one output x of a head into max_depth * sigmoid(x), in metres. List it before the head's base class.

    Args:
        max_depth: the largest depth that the head can predict, metres.
        kwargs: arguments of the head.
    """

    def __init__(self, max_depth: float, **kwargs: Any):
        super().__init__(num_classes=1, out_channels=1, threshold=0.0, **kwargs)
        self.max_depth = max_depth

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Pyramid -> depth float [B,1,h,w], metres."""
        depth: torch.Tensor = torch.sigmoid(super().forward(inputs)) * self.max_depth
        return depth

    def loss_by_feat(self, depth: torch.Tensor, batch_data_samples: list[SegDataSample]) -> dict[str, torch.Tensor]:
        """The mean loss over images with readings in (0, max_depth], of those pixels; 0 if no image has any."""
        truth = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])
        truth = torch.where(truth > self.max_depth, 0, truth)
        depth = resize(depth.float(), size=truth.shape[2:], mode="bilinear", align_corners=self.align_corners)
        # An image without readings has zero loss and gradient, and must not count in the mean either.
        num_with_reading = (truth > 0).flatten(1).any(dim=1).sum()
        loss = self.loss_decode(depth, truth, avg_factor=num_with_reading)
        return {self.loss_decode.loss_name: loss}
