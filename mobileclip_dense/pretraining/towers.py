"""Both towers of CLIP in one forward pass, as DistributedDataParallel needs it."""

import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn

from mobileclip_dense.pretraining.losses import Features


class Towers(nn.Module):
    """Computes the features of images and of their caption sets with the towers of `clip`."""

    def __init__(self, clip: CLIP | CustomTextCLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor, *token_sets: Tensor) -> Features:
        """Images float [B,3,H,W] and, for each caption set, tokens int64 [B,L] -> features [B,D] of unit norm.

        The text tower encodes all caption sets as one batch.
        """
        image = self.clip.encode_image(images, normalize=True)
        texts = self.clip.encode_text(torch.cat(token_sets), normalize=True).chunk(len(token_sets))
        return Features(image, texts, self.clip.logit_scale.exp())
