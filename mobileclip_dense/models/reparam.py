"""Exact structural reparameterization: from the trained network to the one that is deployed.

Every train-time branch, every BatchNorm and every LayerScale is folded into the convolution or linear layer beside it.
Each fold is an identity of real numbers; nothing is approximated. What goes where:

    MobileOneBlock, RepMixer, ReparamLargeKernelConv, RepConditionalPosEnc   branches -> one convolution (timm's folds)
    convolution -> BatchNorm                                                 into the convolution
    BatchNorm -> qkv (AttentionBlock)                                        into the linear layer behind it
    branch -> LayerScale                                                     into the last layer of the branch
    mmcv ConvModule(convolution, BatchNorm, activation)                      convolution, activation
"""

import copy
from typing import Any, TypeVar

import torch
from timm.models.fastvit import (
    AttentionBlock,
    ConvMlp,
    LayerScale2d,
    MobileOneBlock,
    ReparamLargeKernelConv,
    RepConditionalPosEnc,
    RepMixer,
    RepMixerBlock,
)
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

# A BatchNorm in front of a padded convolution would not fold exactly (the padding is zero after the norm, not before);
# MCi has none: its only norm in front of a layer is the attention's, and that layer is linear.
_BRANCHED = (MobileOneBlock, RepMixer, ReparamLargeKernelConv, RepConditionalPosEnc)
_FOLDED = (nn.modules.batchnorm._BatchNorm, LayerScale2d)


def fuse_model(model: Module) -> Module:
    """A fused copy of an encoder, or of any module that holds one; fusing a fused model changes nothing.

    Args:
        model: in evaluation mode; any dtype.

    Raises:
        ValueError: the model is in training mode, where BatchNorm uses the statistics of the batch.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("fuse: the model is in training mode; call model.eval() first")
    fused = copy.deepcopy(model)
    with torch.no_grad():
        for module in list(fused.modules()):
            if isinstance(module, _BRANCHED) and module.reparam_conv is None:
                module.reparameterize()
        for module in list(fused.modules()):
            _fuse_in_place(module)
    for parameter in fused.parameters():
        parameter.requires_grad_(False)
    return fused.eval()


def unfused_modules(model: nn.Module) -> list[str]:
    """Names of what a fused network must not have: BatchNorm, LayerScale, train-time branches."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _FOLDED) or (isinstance(module, _BRANCHED) and module.reparam_conv is None)
    ]


def _fuse_in_place(module: nn.Module) -> None:
    match module:
        case ConvMlp():
            if not isinstance(module.conv, nn.Conv2d):
                module.conv = _conv_norm(module.conv.conv, module.conv.bn)
        case RepMixerBlock():
            module.layer_scale = _fold_scale(module.layer_scale, module.mlp.fc2)
        case AttentionBlock():
            if not isinstance(module.norm, nn.Identity):
                module.token_mixer.qkv = _norm_linear(module.norm, module.token_mixer.qkv)
                module.norm = nn.Identity()
            module.layer_scale_1 = _fold_scale(module.layer_scale_1, module.token_mixer.proj)
            module.layer_scale_2 = _fold_scale(module.layer_scale_2, module.mlp.fc2)
        case _ if type(module).__name__ == "ConvModule":  # mmcv's; not imported here, the encoders do not need mmcv
            _fuse_conv_module(module)


def _norm_affine(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """BatchNorm in evaluation mode as x -> scale x + shift, both [C]."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _conv_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Convolution followed by BatchNorm -> convolution with bias."""
    scale, shift = _norm_affine(norm)
    fused = copy.deepcopy(conv)
    fused.bias = nn.Parameter(torch.zeros_like(shift))
    fused.weight.copy_(conv.weight * scale[:, None, None, None])
    fused.bias.copy_(shift if conv.bias is None else shift + conv.bias * scale)
    return fused


def _norm_linear(norm: nn.Module, linear: nn.Linear) -> nn.Linear:
    """BatchNorm followed by a linear layer over channels -> linear layer with bias."""
    scale, shift = _norm_affine(norm)
    fused = copy.deepcopy(linear)
    fused.bias = nn.Parameter(torch.zeros_like(linear.weight[:, 0]))
    fused.weight.copy_(linear.weight * scale[None, :])
    bias = linear.weight @ shift
    fused.bias.copy_(bias if linear.bias is None else bias + linear.bias)
    return fused


def _fold_scale(scale: nn.Module, last: nn.Conv2d | nn.Linear) -> nn.Module:
    """LayerScale into the last layer of its branch; what remains in its place is the identity."""
    if isinstance(scale, LayerScale2d):
        gamma = scale.gamma.flatten()
        last.weight.mul_(gamma.reshape(-1, *[1] * (last.weight.ndim - 1)))
        assert last.bias is not None
        last.bias.mul_(gamma)
    return nn.Identity()


def _fuse_conv_module(module: Any) -> None:
    """mmcv's ConvModule keeps its class and forward; its convolution takes the norm in."""
    if not module.with_norm:
        return
    if module.order != ("conv", "norm", "act") or not isinstance(module.norm, nn.modules.batchnorm._BatchNorm):
        raise ValueError(f"fuse: ConvModule with order {module.order} and {type(module.norm).__name__}, expected a "
                         f"convolution followed by BatchNorm")  # fmt: skip
    module.conv = _conv_norm(module.conv, module.norm)
    delattr(module, module.norm_name)
    module.with_norm, module.norm_name = False, None
