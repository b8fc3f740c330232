"""The shape of a pruned model as plain numbers, which are stored with a run and applied to a newly built model."""

from typing import Any

import torch
from timm.models.fastvit import (
    Attention,
    LayerScale2d,
    MobileOneBlock,
    ReparamLargeKernelConv,
    RepConditionalPosEnc,
    RepMixer,
)
from torch import nn

Structure = dict[str, dict[str, int]]
"""Module name -> attributes (channels, groups, heads) that differ from the original architecture."""

_BatchNorm = nn.modules.batchnorm._BatchNorm


class PrunedAttention(Attention):
    """Attention with num_heads x head_dim different from the number of channels, which timm's does not support."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [B,C,H,W] -> float [B,C,H,W]."""
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(-2, -1)
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        heads = nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0
        )
        joined = heads.transpose(1, 2).reshape(batch, height * width, self.num_heads * self.head_dim)
        return self.proj_drop(self.proj(joined)).transpose(-2, -1).reshape(batch, channels, height, width)


def structure_of(model: nn.Module) -> Structure:
    """Channels, groups and heads of all layers."""
    described = {name: _describe(module) for name, module in model.named_modules()}
    return {name: attributes for name, attributes in described.items() if attributes}


def structure_difference(model: nn.Module, original: nn.Module) -> Structure:
    """The attributes of `model` that differ from `original`."""
    before = structure_of(original)
    changed: Structure = {}
    for name, attributes in structure_of(model).items():
        if different := {key: value for key, value in attributes.items() if before[name][key] != value}:
            changed[name] = different
    return changed


def apply_structure(model: nn.Module, structure: Structure) -> None:
    """Reshape a newly built model. Changed layers are filled with zeros; load a state dict afterwards.

    Raises:
        ValueError: the model does not have a module or attribute, or a number is out of range.
    """
    modules = dict(model.named_modules())
    for name, changes in structure.items():
        known = _describe(modules[name]) if name in modules else {}
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(f"structure: {name}: found {', '.join(unknown)}, which this architecture does not have; "
                             "the structure belongs to another encoder or head")  # fmt: skip
        for attribute, value in changes.items():
            if type(value) is not int or not 1 <= value <= known[attribute]:
                raise ValueError(f"structure: {name}: {attribute}: found {value!r}, expected a whole number from 1 to "
                                 f"{known[attribute]}")  # fmt: skip
        _reshape(name, modules[name], known | changes)
    follow_structure(model)


def follow_structure(model: nn.Module) -> None:
    """Update the attributes of timm's blocks that describe their layers. Fusion reads them.

    Raises:
        ValueError: the heads of an attention do not match its layers.
    """
    for name, module in model.named_modules():
        match module:
            case MobileOneBlock() if module.reparam_conv is None and module.conv_kxk is not None:
                conv = module.conv_kxk[0].conv
                module.in_chs, module.out_chs, module.groups = conv.in_channels, conv.out_channels, conv.groups
            case MobileOneBlock() if module.reparam_conv is None:  # RepMixer's norm: depthwise, identity branch only
                module.in_chs = module.out_chs = module.groups = module.identity.num_features
            case ReparamLargeKernelConv() if module.reparam_conv is None:
                conv = module.large_conv.conv
                module.in_chs, module.out_chs, module.groups = conv.in_channels, conv.out_channels, conv.groups
            case RepMixer() if module.reparam_conv is None:
                module.dim = module.norm.identity.num_features
            case RepConditionalPosEnc() if module.reparam_conv is None:
                module.dim = module.dim_out = module.groups = module.pos_enc.groups
            case Attention():
                inner = module.num_heads * module.head_dim
                if module.qkv.out_features != 3 * inner or module.proj.in_features != inner:
                    raise ValueError(f"structure: {name}: found {module.qkv.out_features} outputs of qkv and "
                                     f"{module.proj.in_features} inputs of proj, expected {3 * inner} and {inner} for "
                                     f"{module.num_heads} heads")  # fmt: skip
                if inner != module.qkv.in_features:
                    module.__class__ = PrunedAttention  # same layers and names, another forward


def _describe(module: nn.Module) -> dict[str, int]:
    match module:
        case nn.Conv2d() | nn.ConvTranspose2d():
            return {"in_channels": module.in_channels, "out_channels": module.out_channels, "groups": module.groups}
        case nn.Linear():
            return {"in_features": module.in_features, "out_features": module.out_features}
        case _BatchNorm():
            return {"num_features": module.num_features}
        case LayerScale2d():
            return {"channels": module.gamma.shape[0]}
        case Attention():
            return {"num_heads": module.num_heads}
    return {}


def _reshape(name: str, module: Any, shape: dict[str, int]) -> None:
    """Set the attributes of a layer and replace its tensors."""
    for attribute, value in shape.items():
        if attribute != "channels":  # LayerScale has only gamma
            setattr(module, attribute, value)
    match module:
        case nn.Conv2d():
            if module.in_channels % module.groups or module.out_channels % module.groups:
                raise ValueError(f"structure: {name}: found {module.in_channels} inputs, {module.out_channels} outputs "
                                 f"in {module.groups} groups, expected multiples of the groups")  # fmt: skip
            module.weight = _zeros(module.out_channels, module.in_channels // module.groups, *module.kernel_size)
            module.bias = None if module.bias is None else _zeros(module.out_channels)
        case nn.Linear():
            module.weight = _zeros(module.out_features, module.in_features)
            module.bias = None if module.bias is None else _zeros(module.out_features)
        case nn.ConvTranspose2d():
            module.weight = _zeros(module.in_channels, module.out_channels // module.groups, *module.kernel_size)
            module.bias = None if module.bias is None else _zeros(module.out_channels)
        case _BatchNorm():
            if module.affine:
                module.weight, module.bias = _zeros(module.num_features), _zeros(module.num_features)
            module.running_mean, module.running_var = torch.zeros(module.num_features), torch.ones(module.num_features)
        case LayerScale2d():
            module.gamma = _zeros(shape["channels"], 1, 1)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))
