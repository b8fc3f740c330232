"""Small teachers with random weights, each with its own image size, normalization and context length."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mobileclip_dense.models.clip import build_clip

VIT = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
VIT_MEAN, VIT_STD = (0.1, 0.5, 0.9), (0.3, 0.2, 0.4)
COCA = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
                   "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, "embed_cls": True,
                 "output_tokens": True},
    "multimodal_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
                       "attn_pooler_heads": 2},
    "custom_text": True,
}  # fmt: skip


def blotches(num_images: int, size_px: int) -> torch.Tensor:
    """uint8 [B,3,S,S]: pictures that even a random network distinguishes."""
    coarse = np.random.default_rng(0).integers(0, 256, (num_images, 3, 4, 4)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(size_px, size_px), mode="bilinear")
    return smooth.round().to(torch.uint8)


def randomize(model: torch.nn.Module, seed: int, size_px: int) -> None:
    """Randomize all weights. Initial weights hide errors: biases are zero, norms are the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        model.train()
        model.visual(blotches(16, size_px) / 255)  # batch statistics, so that differences survive all layers
        model.eval()


def write_open_clip_folder(folder: Path, model_cfg: dict[str, object], seed: int) -> Path:
    """Save a model with its config and preprocessing, as open_clip does for publication."""
    folder.mkdir()
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": VIT_MEAN, "std": VIT_STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}")
    randomize(model, seed, model.visual.image_size[0])
    if hasattr(model, "text_decoder"):
        generator = torch.Generator().manual_seed(seed)  # open_clip leaves it as the memory was
        model.text_decoder.text_projection.data.normal_(std=0.6, generator=generator)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def nano_teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MobileCLIP-nano in a file: 128 px, pixels in 0..1, 128-d, 48 tokens."""
    path = tmp_path_factory.mktemp("teacher") / "nano.pt"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model, _, _ = build_clip("nano", 128)
    randomize(model, 1, 128)
    torch.save(model.state_dict(), path)
    return f"MobileCLIP-nano:{path}"


@pytest.fixture(scope="session")
def vit_teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ViT in open_clip's folder format: 48 px, an unusual normalization, 24-d, 16 tokens."""
    return str(write_open_clip_folder(tmp_path_factory.mktemp("teacher") / "vit", VIT, seed=2))


@pytest.fixture(scope="session")
def coca(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CoCa that writes nonsense: 32 px."""
    return str(write_open_clip_folder(tmp_path_factory.mktemp("captioner") / "coca", COCA, seed=3))
