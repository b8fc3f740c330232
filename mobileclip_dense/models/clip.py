"""The two towers of CLIP, built by open_clip: its model names, its state-dict keys, its tokenizer."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from open_clip.model import CustomTextCLIP

from mobileclip_dense.contract.preprocess import Normalization
from mobileclip_dense.models.encoders import ENCODERS

# With this, `open_clip.create_model("MobileCLIP-nano")` works wherever this module was imported.
open_clip.add_model_config(Path(__file__).with_name("open_clip_configs"))

Tokenizer = Callable[[list[str]], torch.Tensor]  # captions -> int64 [B,context_length]


def clip_name(encoder: str) -> str:
    """The open_clip model whose image tower is `encoder`.

    Raises:
        ValueError: there is no such encoder, or it has no text tower (Swin-L).
    """
    with_text = [name for name, spec in ENCODERS.items() if spec.clip_name]
    spec = ENCODERS.get(encoder)
    if spec is None or spec.clip_name is None:
        raise ValueError(f"encoder: found {encoder!r}, expected one with a text tower: {', '.join(with_text)}")
    return spec.clip_name


def build_clip(encoder: str, image_size_px: int) -> tuple[CustomTextCLIP, Tokenizer, Normalization]:
    """Two fresh towers, the tokenizer that belongs to them, and the image normalization.

    The model maps (image float [B,3,H,W], text int64 [B,L]) to (image features [B,D], text features [B,D], both of
    unit norm, logit scale).
    """
    name = clip_name(encoder)
    model = open_clip.create_model(name, force_image_size=image_size_px, pretrained=None)
    return model, open_clip.get_tokenizer(name), ENCODERS[encoder].normalization
