"""Exact structural reparameterization: from the train form of a network to the fused form that is deployed.

Every train-time branch, BatchNorm and LayerScale is folded into the adjacent convolution or linear layer. The folds are
exact in real arithmetic:

    MobileOneBlock, RepMixer, ReparamLargeKernelConv, RepConditionalPosEnc   branches -> one convolution (timm's folds)
    convolution -> BatchNorm                                                 into the convolution
    BatchNorm -> qkv (AttentionBlock)                                        into the linear layer after it
    branch -> LayerScale                                                     into the last layer of the branch
    attention scale                                                          into the rows of q
    mmcv ConvModule(convolution, BatchNorm, activation)                      convolution, activation
    Sequential(..., (de)convolution, BatchNorm, ...)                         into the (de)convolution
    Sequential(..., BatchNorm, unpadded convolution, ...)                    into the convolution after it
"""

import copy
from typing import Any, TypeVar

import torch
from timm.layers import ConvNormAct
from timm.models.fastvit import (
    Attention,
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
Convolution = TypeVar("Convolution", bound=nn.Conv2d | nn.ConvTranspose2d)

_BRANCHED = (MobileOneBlock, RepMixer, ReparamLargeKernelConv, RepConditionalPosEnc)
_BatchNorm = nn.modules.batchnorm._BatchNorm
_FOLDED = (_BatchNorm, LayerScale2d, Attention)


class FusedAttention(nn.Module):
    """timm's Attention with pointwise convolutions instead of linear layers, and tensors of at most four axes.

    timm's reshapes q, k and v to five axes, which Apple's Neural Engine does not support.
    """

    def __init__(self, attention: Attention):
        """Build from `attention`, which is in evaluation mode. Its scale is folded into the rows of q."""
        super().__init__()
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        inner = self.num_heads * self.head_dim
        self.qkv, self.proj = _pointwise(attention.qkv), _pointwise(attention.proj)
        assert self.qkv.bias is not None
        for tensor in (self.qkv.weight, self.qkv.bias):
            tensor[:inner].mul_(attention.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [B,C,H,W] -> float [B,C,H,W]."""
        batch, _, height, width = x.shape
        heads = (batch, self.num_heads, self.head_dim, height * width)
        q, k, v = (part.reshape(heads) for part in self.qkv(x).chunk(3, dim=1))
        attention = (q.transpose(-2, -1) @ k).softmax(dim=-1)  # B,heads,N,N
        joined = (v @ attention.transpose(-2, -1)).reshape(batch, -1, height, width)
        projected: torch.Tensor = self.proj(joined)
        return projected


def fuse_model(model: Module) -> Module:
    """A fused copy of an encoder, or of a module that contains one. A fused model is copied unchanged.

    Args:
        model: a model in evaluation mode, of any dtype.

    Raises:
        ValueError: the model is in training mode, in which BatchNorm uses the statistics of the batch.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("fuse: found a model in training mode, expected evaluation mode; call model.eval() first")
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
    """Names of the modules that a fused network must not have: BatchNorm, LayerScale, train-time branches."""
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
        case ConvNormAct() if isinstance(module.bn, nn.modules.batchnorm._BatchNorm):  # the stem of vit_b16_mci
            module.conv, module.bn = _conv_norm(module.conv, module.bn), module.bn.act
        case RepMixerBlock():
            module.layer_scale = _fold_scale(module.layer_scale, module.mlp.fc2)
        case AttentionBlock():
            if not isinstance(module.norm, nn.Identity):
                module.token_mixer.qkv = _norm_linear(module.norm, module.token_mixer.qkv)
                module.norm = nn.Identity()
            module.layer_scale_1 = _fold_scale(module.layer_scale_1, module.token_mixer.proj)
            if isinstance(module.token_mixer, Attention):
                module.token_mixer = FusedAttention(module.token_mixer)
            module.layer_scale_2 = _fold_scale(module.layer_scale_2, module.mlp.fc2)
        case nn.Sequential():
            _fuse_sequence(module)
        case _ if type(module).__name__ == "ConvModule":  # mmcv's, which encoders do not need and is not imported
            _fuse_conv_module(module)


def _norm_affine(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift [C] of a BatchNorm in evaluation mode: x -> scale x + shift."""
    scale = 1 / torch.sqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else norm.weight * scale
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else norm.bias + shift


def _conv_norm(conv: Convolution, norm: nn.Module) -> Convolution:
    """Fold a BatchNorm into the (de)convolution before it. A deconvolution has one group."""
    scale, shift = _norm_affine(norm)
    fused = copy.deepcopy(conv)
    fused.bias = nn.Parameter(torch.zeros_like(shift))
    outputs = 1 if isinstance(conv, nn.ConvTranspose2d) else 0  # output axis of the weight
    fused.weight.copy_(conv.weight * scale.reshape([-1 if axis == outputs else 1 for axis in range(4)]))
    fused.bias.copy_(shift if conv.bias is None else shift + conv.bias * scale)
    return fused


def _norm_conv(norm: nn.Module, conv: nn.Conv2d) -> nn.Conv2d:
    """Fold a BatchNorm into the convolution after it, which has no padding and one group."""
    scale, shift = _norm_affine(norm)
    fused = copy.deepcopy(conv)
    fused.bias = nn.Parameter(torch.zeros_like(conv.weight[:, 0, 0, 0]))
    fused.weight.copy_(conv.weight * scale[None, :, None, None])
    bias = conv.weight.sum((2, 3)) @ shift
    fused.bias.copy_(bias if conv.bias is None else bias + conv.bias)
    return fused


def _norm_linear(norm: nn.Module, linear: nn.Linear) -> nn.Linear:
    """Fold a BatchNorm into the linear layer over channels after it."""
    scale, shift = _norm_affine(norm)
    fused = copy.deepcopy(linear)
    fused.bias = nn.Parameter(torch.zeros_like(linear.weight[:, 0]))
    fused.weight.copy_(linear.weight * scale[None, :])
    bias = linear.weight @ shift
    fused.bias.copy_(bias if linear.bias is None else bias + linear.bias)
    return fused


def _pointwise(linear: nn.Linear) -> nn.Conv2d:
    """A linear layer over channels as a convolution over [B,C,H,W]."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1).to(linear.weight)
    conv.weight.copy_(linear.weight[:, :, None, None])
    conv.bias.copy_(linear.bias if linear.bias is not None else 0)  # type: ignore[union-attr]
    return conv


def _fold_scale(scale: nn.Module, last: nn.Conv2d | nn.Linear) -> nn.Module:
    """Fold a LayerScale into the last layer of its branch, in place. Returns the identity that replaces it."""
    if isinstance(scale, LayerScale2d):
        gamma = scale.gamma.flatten()
        last.weight.mul_(gamma.reshape(-1, *[1] * (last.weight.ndim - 1)))
        assert last.bias is not None
        last.bias.mul_(gamma)
    return nn.Identity()


def _fuse_sequence(sequence: nn.Sequential) -> None:
    """Fold the BatchNorms of a sequence. The identity replaces them, so that other modules keep their names.

    A BatchNorm before a padded convolution is not folded: the padding is zero after the norm, not before it.
    """
    for i in range(len(sequence) - 1):
        match sequence[i], sequence[i + 1]:
            case (nn.Conv2d() | nn.ConvTranspose2d(groups=1)) as conv, _BatchNorm() as norm:
                sequence[i], sequence[i + 1] = _conv_norm(conv, norm), nn.Identity()
            case _BatchNorm() as norm, nn.Conv2d(padding=(0, 0), groups=1) as conv:
                sequence[i], sequence[i + 1] = nn.Identity(), _norm_conv(norm, conv)


def _fuse_conv_module(module: Any) -> None:
    """Fold the norm of mmcv's ConvModule into its convolution. The module keeps its class and forward."""
    if not module.with_norm:
        return
    if module.order != ("conv", "norm", "act") or not isinstance(module.norm, _BatchNorm):
        raise ValueError(f"fuse: ConvModule with order {module.order} and {type(module.norm).__name__}, expected a "
                         f"convolution followed by BatchNorm")  # fmt: skip
    module.conv = _conv_norm(module.conv, module.norm)
    delattr(module, module.norm_name)
    module.with_norm, module.norm_name = False, None
