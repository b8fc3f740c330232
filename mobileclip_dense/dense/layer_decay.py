"""Layer-wise learning-rate decay: what lies closer to the pixels was pretrained longer and moves less (BEiT, MAE).

    encoder   layer 0                                        layers 1..L                 at the full rate
    MCi       stem                                           stages.0..3                 what is not the encoder's
    Swin      patch embedding                                layers.0..3                 output norms and the rest
    ViT       patch, position and class embedding, norm_pre  blocks.0..11                norm and the rest

The learning rate of layer l is the full one times decay ** (L + 1 - l).
"""

import re
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

_TRUNK = re.compile(r"(?:^|\.)encoder\.trunk\.(.+)")
_FIRST = re.compile(r"(?:stem|patch_embed|pos_embed|cls_token|reg_token|norm_pre)(?:\.|$)")
_NUMBERED = re.compile(r"(?:stages|layers|blocks)\.(\d+)\.")
_NOT_DECAYED = ("gamma", "pos_embed", "cls_token", "reg_token", "relative_position_bias_table")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """`optim_wrapper=dict(constructor="LayerDecayConstructor", paramwise_cfg=dict(layer_decay=0.65), ...)`.

    One group of parameters for each layer and weight decay, the full learning rate first. Biases, norms, LayerScales,
    position embeddings and biases, and class tokens have no weight decay. With layer_decay=1.0 that is all it does.
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:
        """Append the groups of the model's parameters to `params`; frozen parameters get none."""
        below_top = layers_below_top(module)
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((below_top[name], is_decayed(name, parameter)), []).append(parameter)
        for depth, decayed in sorted(groups, key=lambda key: (key[0], not key[1])):
            group = dict(params=groups[depth, decayed], lr=self.base_lr * self.paramwise_cfg["layer_decay"] ** depth)
            if not decayed:
                group["weight_decay"] = 0.0  # the others have the optimizer's, told or by default
            params.append(group)


def layers_below_top(model: nn.Module) -> dict[str, int]:
    """Parameter name -> how many layers it lies below what stands on the encoder: 0 for that, L + 1 for the stem."""
    layers = {name: _layer(match[1]) for name, _ in model.named_parameters() if (match := _TRUNK.search(name))}
    top = 1 + max((layer for layer in layers.values() if layer is not None), default=0)
    return {name: 0 if (layer := layers.get(name)) is None else top - layer for name, _ in model.named_parameters()}


def _layer(name: str) -> int | None:
    """Of a parameter of a timm trunk; None: above all layers."""
    if _FIRST.match(name):
        return 0
    return None if (match := _NUMBERED.match(name)) is None else int(match[1]) + 1


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay makes sense: for matrices and kernels."""
    return parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in _NOT_DECAYED
