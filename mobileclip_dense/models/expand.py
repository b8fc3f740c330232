"""Expansion of a fused network to its train form: the inverse of the branch fusion of `reparam`, timm and Apple.

A fused convolution does not determine its branches. Among the many train-form states with the same output in evaluation
mode, this uses the simplest: one branch holds the fused convolution, its BatchNorm is the identity, and the BatchNorms
of the other branches have gain 0.

    MobileOneBlock           k x k branch <- fused;  skip and 1 x 1 branches 0
    ReparamLargeKernelConv   large kernel <- fused;  small kernel 0
    RepMixer                 x + 1 (mixer(x) - norm(x)):  mixer <- fused, norm the identity, LayerScale 1
    RepConditionalPosEnc     x + conv(x):  conv <- fused minus the identity kernel

Attention, MLPs, LayerScale and squeeze-and-excitation are the same in both forms. In training mode, a BatchNorm uses
the statistics of the batch instead of the identity written here. To continue training, prefer the weights from before
the fusion.
"""

import math

import torch
from timm.models.fastvit import MobileOneBlock, ReparamLargeKernelConv, RepConditionalPosEnc, RepMixer
from torch import nn

State = dict[str, torch.Tensor]


def is_fused(state: State) -> bool:
    """Whether a state dict with timm's or open_clip's keys contains fused convolutions."""
    return any(".reparam_conv." in name for name in state)


def expand_fused(model: nn.Module, state: State) -> State:
    """The train-form state with the same output in evaluation mode. Tensors that are not fused are unchanged.

    Args:
        model: an open_clip model or timm trunk in train form, which determines the branches.
        state: state dict with the model's names; fused convolutions are `NAME.reparam_conv.weight` and `.bias`.
    """
    expanded = dict(state)
    for name, module in model.named_modules():
        key = f"{name}.reparam_conv."
        if f"{key}weight" not in state or f"{key}bias" not in state:
            continue
        branches = _branches(module, expanded.pop(f"{key}weight"), expanded.pop(f"{key}bias"))
        expanded |= {f"{name}.{branch}": tensor for branch, tensor in branches.items()}
    return expanded


def _branches(module: nn.Module, kernel: torch.Tensor, bias: torch.Tensor) -> State:
    match module:
        case MobileOneBlock():
            return _mobile_one(module, kernel, bias)
        case ReparamLargeKernelConv():
            state = {"large_conv.conv.weight": kernel} | _norm("large_conv.bn", module.large_conv.bn, 1, bias)
            small = _middle(kernel, module.small_kernel)
            return state | {"small_conv.conv.weight": small} | _norm("small_conv.bn", module.small_conv.bn, 0)
        case RepMixer():
            mixer = {f"mixer.{name}": tensor for name, tensor in _mobile_one(module.mixer, kernel, bias).items()}
            state = mixer | _norm("norm.identity", module.norm.identity, 1)
            return state | {"layer_scale.gamma": torch.ones_like(module.layer_scale.gamma)}
        case RepConditionalPosEnc():
            identity = torch.zeros_like(kernel)
            identity[:, 0, kernel.shape[2] // 2, kernel.shape[3] // 2] = 1
            return {"pos_enc.weight": kernel - identity, "pos_enc.bias": bias}
    return {"reparam_conv.weight": kernel, "reparam_conv.bias": bias}  # has no branches: an unknown key


def _mobile_one(block: MobileOneBlock, kernel: torch.Tensor, bias: torch.Tensor) -> State:
    state = {"conv_kxk.0.conv.weight": kernel} | _norm("conv_kxk.0.bn", block.conv_kxk[0].bn, 1, bias)
    if block.identity is not None:
        state |= _norm("identity", block.identity, 0)
    if block.conv_scale is not None:
        # Not zero: with a kernel and a gain of zero, the gradients of both would stay zero.
        state |= {"conv_scale.conv.weight": _middle(kernel, 1)} | _norm("conv_scale.bn", block.conv_scale.bn, 0)
    return state


def _norm(name: str, norm: nn.BatchNorm2d, gain: float, shift: torch.Tensor | None = None) -> State:
    """The state of a BatchNorm that computes gain x + shift in evaluation mode."""
    zeros = torch.zeros(norm.num_features)
    return {
        f"{name}.weight": torch.full_like(zeros, gain * math.sqrt(1 + norm.eps)),
        f"{name}.bias": zeros if shift is None else shift,
        f"{name}.running_mean": zeros,
        f"{name}.running_var": torch.ones_like(zeros),
        f"{name}.num_batches_tracked": torch.tensor(0),
    }


def _middle(kernel: torch.Tensor, size: int) -> torch.Tensor:
    """The central size x size taps of a kernel [O,I,K,K]."""
    first = (kernel.shape[-1] - size) // 2
    return kernel[..., first : first + size, first : first + size]
