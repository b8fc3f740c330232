"""Layer-wise learning-rate decay: lower layers have smaller learning rates (BEiT, MAE).

Layer 0 is the stem. Layers 1..L are given by `layers` of the encoder's family: the stages of an MCi or a Swin, the
blocks of a ViT. All other parameters (head, pyramid, output norms) have the full learning rate.

The learning rate of layer l is the full learning rate times decay ** (L + 1 - l).
"""

import math
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mobileclip_dense.models.families.family import family_of

_MMENGINE_KEYS = ("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult",
                  "dwconv_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate")  # fmt: skip
_NOT_DECAYED = ("gamma", "pos_embed", "cls_token", "reg_token", "relative_position_bias_table")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """`optim_wrapper=dict(constructor="LayerDecayConstructor", paramwise_cfg=dict(layer_decay=0.65), ...)`.

    It makes one parameter group for each layer and setting, the full learning rate first. Biases, norms, LayerScales,
    position embeddings, relative position biases and class tokens have no weight decay. With layer_decay=1.0, the
    default, only weight decay is set.

    mmengine's own keys of paramwise_cfg (custom_keys, bias_lr_mult, norm_decay_mult, ...) keep their meaning. The
    learning rates that they set are multiplied by the decay of the layer. The weight decays that they set are used
    unchanged, also for norms and biases. A custom key without decay_mult does not change the weight decay.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None):
        """Raises ValueError for an unknown key, a layer_decay of 0 or less, or an optimizer without lr."""
        super().__init__(optim_wrapper_cfg, {"layer_decay": 1.0} | (paramwise_cfg or {}))
        if unknown := sorted(self.paramwise_cfg.keys() - {"layer_decay", *_MMENGINE_KEYS}):
            raise ValueError(
                f"paramwise_cfg: found {', '.join(unknown)}, expected layer_decay or one of mmengine's "
                f"keys: {', '.join(_MMENGINE_KEYS)}"
            )
        decay = self.paramwise_cfg["layer_decay"]
        if not isinstance(decay, int | float) or not 0 < decay < math.inf:
            raise ValueError(f"paramwise_cfg.layer_decay: found {decay!r}, expected a number above 0, e.g. 0.65")
        if self.base_lr is None:
            raise ValueError("optimizer.lr: found none, expected the full learning rate; add lr=... to the optimizer")

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **options: Any) -> None:
        """Append the parameter groups of the model to `params`. Frozen parameters are in no group.

        mmengine calls this recursively, with the name of each module as `prefix`; the prefix of the model is empty.
        """
        if prefix:
            super().add_params(params, module, prefix, **options)
            return
        own: list[dict[str, Any]] = []
        super().add_params(own, module, **options)
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        below_top = layers_below_top(module)
        groups: dict[tuple[int, bool, str], dict[str, Any]] = {}
        for group in own:
            parameter = group["params"][0]
            if (name := names.pop(id(parameter), None)) is None:  # a shared parameter that is already in a group
                continue
            settings = self._settings(group, name, below_top[name])
            key = (below_top[name], settings.get("weight_decay") == 0, repr(settings))
            groups.setdefault(key, settings | {"params": []})["params"].append(parameter)
        params.extend(groups[key] for key in sorted(groups))

    def _settings(self, group: dict[str, Any], name: str, depth: int) -> dict[str, Any]:
        """The settings of one parameter: learning rate, weight decay and further settings of its custom key."""
        settings = {key: value for key, value in group.items() if key not in ("params", "lr_mult", "decay_mult")}
        settings["lr"] = group.get("lr", self.base_lr) * self.paramwise_cfg["layer_decay"] ** depth
        custom = self._custom_key(name)
        is_set = "weight_decay" in group if custom is None else custom.keys() & {"decay_mult", "weight_decay"}
        if not is_set:
            settings.pop("weight_decay", None)  # use the optimizer's
            if not is_decayed(name, group["params"][0]):
                settings["weight_decay"] = 0.0
        return settings

    def _custom_key(self, name: str) -> dict[str, Any] | None:
        """The settings of the longest custom key in the name, as in mmengine; ties go to the first by name."""
        keys: dict[str, dict[str, Any]] = self.paramwise_cfg.get("custom_keys", {})
        full_name = name if "." in name else f".{name}"  # mmengine's name of a parameter of the model itself
        return next((keys[key] for key in sorted(keys, key=lambda key: (-len(key), key)) if key in full_name), None)


def layers_below_top(model: nn.Module) -> dict[str, int]:
    """The number of layers between each parameter and the top, by name: 0 above the encoder, L + 1 for the stem."""
    below: dict[int, int] = {}
    for name, trunk in model.named_modules():
        family = family_of(trunk) if f".{name}".endswith(".encoder.trunk") else None
        layers = [] if family is None else family.layers(trunk)
        for index, parts in enumerate(layers):
            for part in parts:
                parameters = [part] if isinstance(part, nn.Parameter) else part.parameters()
                below |= {id(parameter): len(layers) - index for parameter in parameters}
    return {name: below.get(id(parameter), 0) for name, parameter in model.named_parameters()}


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter has weight decay: matrices and convolution kernels do."""
    return parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in _NOT_DECAYED
