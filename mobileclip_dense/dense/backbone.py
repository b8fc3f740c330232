"""The encoders as an mmsegmentation backbone."""

from pathlib import Path

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS

from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_encoder_weights


@MODELS.register_module()
class PyramidEncoder(BaseModule):
    """`dict(type="PyramidEncoder", name="mci2", weights="runs/clip", drop_path_rate=0.1)`.

    Args:
        name: nano, mci0, mci1, mci2 or swin_l.
        weights: run folder or checkpoint of open_clip, timm or Apple; None: fresh weights.
        drop_path_rate: stochastic depth, 0..1.
    """

    def __init__(self, name: str, weights: str | None = None, drop_path_rate: float = 0.0,
                 frozen_stages: int = 0, batch_norm: str = "train"):  # fmt: skip
        super().__init__()
        self.encoder = Encoder(name, drop_path_rate)
        self.weights = weights

    def init_weights(self) -> None:
        """Load `weights`; mmengine calls this once, before training."""
        if self.weights is not None:
            load_encoder_weights(self.encoder, Path(self.weights))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """float [B,3,H,W] -> four maps at strides 4, 8, 16, 32."""
        pyramid: list[torch.Tensor] = self.encoder(image)
        return pyramid
