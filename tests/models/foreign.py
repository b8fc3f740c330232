"""Checkpoints in foreign layouts, made key by key from an open_clip model."""

import copy
import re
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from open_clip.model import CustomTextCLIP
from timm.models.vision_transformer import VisionTransformer
from timm.utils import reparameterize_model

from mobileclip_dense.config.encoders import ENCODERS, EncoderSpec

State = dict[str, torch.Tensor]


def _tiny(name: str, channels: tuple[int, ...], **arguments: object) -> EncoderSpec:
    spec = ENCODERS[name]
    return replace(spec, clip_name=None, channels=channels, timm_arguments=(*spec.timm_arguments, *arguments.items()))


TINY_VIT = dict(embed_dim=24, num_heads=2, depth=4, img_size=64)
TINY_SWIN = dict(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4, img_size=64)
TINY = {  # the encoders' own architectures, narrow; tests put them into ENCODERS
    "tiny_vit_clip": _tiny("vit_b16_clip", (256,) * 4, **TINY_VIT),
    "tiny_vit": _tiny("vit_b16", (256,) * 4, **TINY_VIT),
    "tiny_swin": _tiny("swin_l", (8, 16, 32, 64), **TINY_SWIN),
}

# timm's keys to Apple's: the published layout of mobileclip_s*.pt, and that after Apple's own fusion; in this order.
_IMAGE = (
    ("stem.", "patch_embed."), ("stages.0.blocks", "network.0"), ("stages.1.blocks", "network.2"),
    ("stages.2.blocks", "network.4"), ("stages.3.blocks", "network.7"),
    ("downsample.proj.0.reparam_conv", "downsample.proj.0.lkb_reparam"), ("stages.1.downsample.proj", "network.1.proj"),
    ("stages.2.downsample.proj", "network.3.proj"), ("stages.3.downsample.proj", "network.5.proj"),
    ("stages.3.pos_emb.pos_enc", "network.6.pe"), ("stages.3.pos_emb", "network.6"), ("conv_kxk", "rbr_conv"),
    ("conv_scale", "rbr_scale"), ("identity", "rbr_skip"), ("large_conv", "lkb_origin"), ("mlp.", "convffn."),
    ("final_conv.se.fc1", "conv_exp.se.reduce"), ("final_conv.se.fc2", "conv_exp.se.expand"),
    ("final_conv.", "conv_exp."), (".gamma", ""),
)  # fmt: skip
_TEXT = (
    ("token_embedding", "embedding_layer"), ("ln_final", "final_layer_norm"), ("text_projection", "projection_layer"),
    ("transformer.resblocks.", "transformer."), ("attn.in_proj_", "attn.qkv_proj."), ("ln_1", "pre_norm_mha.0"),
    ("attn.", "pre_norm_mha.1."), ("ln_2", "pre_norm_ffn.0"), ("mlp.c_fc", "pre_norm_ffn.1"),
    ("mlp.c_proj", "pre_norm_ffn.4"), ("positional_embedding", "positional_embedding.pos_embed.pos_embed"),
)  # fmt: skip


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Set weights, BatchNorm statistics and LayerScales to random values other than 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0), (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):  # fmt: skip
                tensor.data.uniform_(low, high, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith(".gamma"):
            parameter.data.uniform_(0.2, 0.6, generator=generator)
        elif name.endswith("head.fc.bias"):
            parameter.data.zero_()  # Apple's projection has none
    model.logit_scale.data.fill_(3.21)


def to_apple(clip: CustomTextCLIP, *, fused: bool = False) -> State:
    """The weights in Apple's layout; fused: after Apple's `reparameterize_model`."""
    trunk = reparameterize_model(clip.visual.trunk) if fused else clip.visual.trunk
    apple = {"logit_scale": clip.logit_scale.data}
    for name, tensor in trunk.state_dict().items():
        if name == "head.fc.weight":
            apple["image_encoder.model.head.proj"] = tensor.T.contiguous()
        elif name != "head.fc.bias":
            apple[f"image_encoder.model.{_rename(name, _IMAGE)}"] = tensor
    for name, tensor in clip.text.state_dict().items():
        tensor = tensor[None, None] if name == "positional_embedding" else tensor
        apple[f"text_encoder.{_rename(name, _TEXT)}"] = tensor
    return apple


def fused_clip(clip: CustomTextCLIP) -> State:
    """The open_clip state dict after timm's fusion of the image tower."""
    fused = copy.deepcopy(clip)
    fused.visual.trunk = reparameterize_model(fused.visual.trunk)
    return fused.state_dict()


def to_microsoft(swin: State) -> State:
    """timm's Swin in Microsoft's layout: downsampling at the end of a stage, buffers stored."""
    renamed = {re.sub(r"layers\.(\d)\.downsample", lambda n: f"layers.{int(n[1]) - 1}.downsample", name): tensor
               for name, tensor in swin.items()}  # fmt: skip
    buffers = {"layers.0.blocks.1.attn_mask": torch.zeros(3), "layers.0.blocks.1.attn.relative_position_index":
               torch.zeros(16, 16, dtype=torch.long)}  # fmt: skip
    return renamed | buffers


def to_augreg(vit: VisionTransformer) -> dict[str, npt.NDArray[np.float32]]:
    """timm's ViT in the layout of Google's .npz."""
    state = {name: tensor.numpy() for name, tensor in vit.state_dict().items()}
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for index in range(len(vit.blocks)):
        theirs, ours = f"Transformer/encoderblock_{index}", f"blocks.{index}"
        for norm, other in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{theirs}/{other}/scale"] = state[f"{ours}.{norm}.weight"]
            arrays[f"{theirs}/{other}/bias"] = state[f"{ours}.{norm}.bias"]
        heads = (vit.blocks[0].attn.num_heads, -1)
        attention, width = f"{theirs}/MultiHeadDotProductAttention_1", vit.embed_dim
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * width, (part + 1) * width)
            arrays[f"{attention}/{name}/kernel"] = state[f"{ours}.attn.qkv.weight"][rows].T.reshape(width, *heads)
            arrays[f"{attention}/{name}/bias"] = state[f"{ours}.attn.qkv.bias"][rows].reshape(heads)
        arrays[f"{attention}/out/kernel"] = state[f"{ours}.attn.proj.weight"].T.reshape(*heads, width)
        arrays[f"{attention}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for layer in (0, 1):
            arrays[f"{theirs}/MlpBlock_3/Dense_{layer}/kernel"] = state[f"{ours}.mlp.fc{layer + 1}.weight"].T
            arrays[f"{theirs}/MlpBlock_3/Dense_{layer}/bias"] = state[f"{ours}.mlp.fc{layer + 1}.bias"]
    return arrays


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in table:
        name = name.replace(ours, theirs)
    return name
