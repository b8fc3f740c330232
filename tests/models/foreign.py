"""Checkpoints as others write them, made key by key from an open_clip model."""

import copy

import torch
from open_clip.model import CustomTextCLIP
from timm.utils import reparameterize_model

State = dict[str, torch.Tensor]

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
    """Weights, BatchNorm statistics and LayerScales as after training: none of them 0 or 1."""
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
    """What Apple writes for these weights; fused: after its `reparameterize_model`."""
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


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in table:
        name = name.replace(ours, theirs)
    return name
