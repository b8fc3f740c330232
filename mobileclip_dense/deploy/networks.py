"""Exported networks: fused models with preprocessing and postprocessing inside the graph."""

from typing import Any

import torch
from torch import nn

from mobileclip_dense.artifact.preprocess import Normalization


class Normalized(nn.Module):
    """float [B,3,H,W] RGB in 0..1 -> (pixel - mean) / std; the identity for encoders that take 0..1."""

    def __init__(self, normalization: Normalization):
        super().__init__()
        self.identity = normalization.mean == (0, 0, 0) and normalization.std == (1, 1, 1)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(normalization.mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(normalization.std)[None, :, None, None])

    def forward(self, unit_image: torch.Tensor) -> torch.Tensor:
        """See the class docstring."""
        return unit_image if self.identity else (unit_image - self.mean) / self.std


class DensePredictor(nn.Module):
    """float [B,3,H,W] RGB in 0..1 -> (logits [B,C,H/4,W/4], class_map int32 [B,H,W]) or (depth_m [B,H,W],).

    Args:
        model: a segmentor or a depth estimator of mmsegmentation.
        normalization: normalization of its encoder.
        task: segment or depth.
    """

    def __init__(self, model: nn.Module, normalization: Normalization, task: str):
        super().__init__()
        self.normalized = Normalized(normalization)
        self.backbone: Any = model.backbone
        self.neck: Any = getattr(model, "neck", nn.Identity())
        self.head: Any = model.decode_head
        self.task = task

    def forward(self, unit_image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class docstring. Predictions are upsampled as in mmsegmentation: bilinear, before the argmax."""
        prediction = self.head(self.neck(self.backbone(self.normalized(unit_image))))
        full = nn.functional.interpolate(prediction, unit_image.shape[2:], mode="bilinear", align_corners=False)
        if self.task == "segment":
            return prediction, full.argmax(dim=1).to(torch.int32)
        return (full.squeeze(1),)


class ImageTower(nn.Module):
    """float [B,3,H,W] RGB in 0..1 -> (image_embedding [B,D],), of unit norm."""

    def __init__(self, visual: nn.Module, normalization: Normalization):
        super().__init__()
        self.normalized, self.visual = Normalized(normalization), visual

    def forward(self, unit_image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class docstring."""
        return (nn.functional.normalize(self.visual(self.normalized(unit_image)), dim=-1),)


class TextTower(nn.Module):
    """int [B,L] tokens -> (text_embedding [B,D],), of unit norm."""

    def __init__(self, text: nn.Module):
        super().__init__()
        self.text = text

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class docstring."""
        return (nn.functional.normalize(self.text(tokens), dim=-1),)


class FromPixels(nn.Module):
    """uint8 [B,H,W,3] RGB -> the outputs of `network` for float [B,3,H,W] in 0..1."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class docstring."""
        outputs: tuple[torch.Tensor, ...] = self.network(image.permute(0, 3, 1, 2).to(torch.float32) / 255)
        return outputs
