"""The learning rate and weight decay of every parameter, against tables written by hand."""

from typing import Any

import pytest
import timm
import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.config.encoders import ENCODERS


class Dense(nn.Module):
    """A model with an encoder trunk at its usual place, and a head."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.encoder = nn.Module()
        self.backbone.encoder.trunk = trunk
        self.decode_head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


def rates(model: nn.Module, layer_decay: float = 0.5) -> dict[str, tuple[float, float]]:
    """Parameter name -> learning rate, weight decay. The full ones are 1 and 0.1."""
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type="LayerDecayConstructor",
            optim_wrapper_cfg=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1)),
            paramwise_cfg=dict(layer_decay=layer_decay),
        )
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = constructor(model).optimizer.param_groups
    assert groups[0]["lr"] == 1.0  # what the log calls the learning rate
    assert len({(group["lr"], group["weight_decay"]) for group in groups}) == len(groups) or layer_decay == 1
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def check(model: nn.Module, table: dict[str, tuple[float, float]], num_rates: int) -> None:
    found = rates(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, expected in table.items():
        assert found[name if name.startswith("decode") else f"backbone.encoder.trunk.{name}"] == expected, name
    assert len({rate for rate, _ in found.values()}) == num_rates
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert found[name][1] == 0, name


def test_an_mci_is_decayed_by_stage() -> None:
    with torch.device("meta"):
        trunk = timm.create_model(ENCODERS["nano"].timm_name)
        trunk.prune_intermediate_layers(4, prune_norm=True, prune_head=True)
        model = Dense(trunk)
    check(model, {
        "stem.0.conv_kxk.0.conv.weight": (1 / 32, 0.1),
        "stem.0.conv_kxk.0.bn.weight": (1 / 32, 0.0),
        "stages.0.blocks.0.token_mixer.mixer.conv_kxk.0.conv.weight": (1 / 16, 0.1),
        "stages.0.blocks.0.token_mixer.layer_scale.gamma": (1 / 16, 0.0),  # of three axes
        "stages.0.blocks.0.mlp.fc1.bias": (1 / 16, 0.0),
        "stages.1.downsample.proj.0.large_conv.conv.weight": (1 / 8, 0.1),
        "stages.2.blocks.1.mlp.fc2.weight": (1 / 4, 0.1),
        "stages.2.blocks.1.layer_scale.gamma": (1 / 4, 0.0),
        "stages.3.pos_emb.pos_enc.weight": (1 / 2, 0.1),  # a depthwise convolution
        "stages.3.blocks.0.token_mixer.qkv.weight": (1 / 2, 0.1),
        "stages.3.blocks.0.layer_scale_1.gamma": (1 / 2, 0.0),
        "stages.3.blocks.0.norm.weight": (1 / 2, 0.0),
        "decode_head.0.weight": (1.0, 0.1),
        "decode_head.0.bias": (1.0, 0.0),
        "decode_head.1.weight": (1.0, 0.0),
    }, num_rates=6)  # fmt: skip


def test_a_vit_is_decayed_by_block() -> None:
    with torch.device("meta"):
        model = Dense(timm.create_model("vit_base_patch16_clip_224", num_classes=0, init_values=0.1))
    check(model, {
        "patch_embed.proj.weight": (2.0**-13, 0.1),
        "pos_embed": (2.0**-13, 0.0),
        "cls_token": (2.0**-13, 0.0),
        "norm_pre.weight": (2.0**-13, 0.0),
        "blocks.0.attn.qkv.weight": (2.0**-12, 0.1),
        "blocks.0.ls1.gamma": (2.0**-12, 0.0),
        "blocks.0.attn.qkv.bias": (2.0**-12, 0.0),
        "blocks.1.mlp.fc1.weight": (2.0**-11, 0.1),
        "blocks.10.mlp.fc1.weight": (2.0**-2, 0.1),
        "blocks.11.mlp.fc1.weight": (2.0**-1, 0.1),
        "norm.weight": (1.0, 0.0),
        "decode_head.0.weight": (1.0, 0.1),
    }, num_rates=14)  # fmt: skip


def test_a_swin_is_decayed_by_stage() -> None:
    with torch.device("meta"):
        model = Dense(timm.create_model("swin_tiny_patch4_window7_224", num_classes=0))
    check(model, {
        "patch_embed.proj.weight": (1 / 32, 0.1),
        "patch_embed.norm.weight": (1 / 32, 0.0),
        "layers.0.blocks.1.attn.relative_position_bias_table": (1 / 16, 0.0),
        "layers.0.blocks.1.attn.qkv.weight": (1 / 16, 0.1),
        "layers.1.downsample.reduction.weight": (1 / 8, 0.1),
        "layers.2.blocks.5.mlp.fc2.weight": (1 / 4, 0.1),
        "layers.3.blocks.0.mlp.fc2.bias": (1 / 2, 0.0),
        "norm.weight": (1.0, 0.0),
        "decode_head.1.bias": (1.0, 0.0),
    }, num_rates=6)  # fmt: skip


def test_without_layer_decay_only_the_weight_decay_differs() -> None:
    with torch.device("meta"):
        model = Dense(timm.create_model(ENCODERS["nano"].timm_name, num_classes=0))
    assert {rate for rate, _ in rates(model, 1.0).values()} == {1.0}
    assert {decay for _, decay in rates(model, 1.0).values()} == {0.0, 0.1}


def test_frozen_parameters_are_in_no_group_and_move_no_other() -> None:
    with torch.device("meta"):
        model = Dense(timm.create_model(ENCODERS["nano"].timm_name, num_classes=0))
    every = rates(model)
    model.backbone.encoder.trunk.stem.requires_grad_(False)
    model.backbone.encoder.trunk.stages[0].requires_grad_(False)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained < every.keys()
    assert rates(model) == {name: every[name] for name in trained}


OPTIMIZER: dict[str, Any] = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1))
KEYS: tuple[dict[str, Any], ...] = (
    {"custom_keys": {"decode_head": {"lr_mult": 10.0}}},
    {"custom_keys": {"decode_head": {"lr_mult": 10.0, "decay_mult": 0.5}}},
    {"custom_keys": {"stages": {"lr_mult": 0.1}, "stages.1": {"lr_mult": 0.2, "decay_mult": 2.0}}},
    {"custom_keys": {"norm": {"decay_mult": 1.0}, ".bn.": {"decay_mult": 3.0}}},
    {"bias_lr_mult": 2.0},
    {"bias_decay_mult": 0.5},
    {"norm_decay_mult": 1.0},
    {"flat_decay_mult": 0.3},
    {"dwconv_decay_mult": 0.0},
    {"bypass_duplicate": True},
    {"bias_lr_mult": 2.0, "norm_decay_mult": 0.0, "custom_keys": {"decode_head": {"lr_mult": 10.0}}},
)


def groups_of(constructor: Any, model: nn.Module) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = constructor(model).optimizer.param_groups
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("keys", KEYS)
def test_mmengines_own_keys_mean_what_they_mean_there(keys: dict[str, Any]) -> None:
    """Learning rates times the decay of the layer; weight decays where a key gives one, else those of this module."""
    with torch.device("meta"):
        model = Dense(timm.create_model(ENCODERS["nano"].timm_name, num_classes=0))
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    plain = rates(model)
    theirs = groups_of(DefaultOptimWrapperConstructor(OPTIMIZER, keys), model)
    wrapper = dict(
        type="LayerDecayConstructor", optim_wrapper_cfg=OPTIMIZER, paramwise_cfg={"layer_decay": 0.5, **keys}
    )
    ours = groups_of(OPTIM_WRAPPER_CONSTRUCTORS.build(wrapper), model)
    assert ours.keys() == plain.keys()
    for name, (rate, decay) in ours.items():
        assert rate == pytest.approx(theirs[name][0] * plain[name][0]), name
        custom = [key for key in keys.get("custom_keys", {}) if key in name]
        told = bool(custom) and "decay_mult" in keys["custom_keys"][max(custom, key=len)]
        told = told or (not custom and ("norm_decay_mult" in keys and name.rsplit(".", 1)[0] in norms))
        told = told or (not custom and theirs[name][1] != 0.1)
        assert decay == pytest.approx(theirs[name][1] if told or plain[name][1] else 0.0), name
    assert ours != plain or keys == {"bypass_duplicate": True}


def test_further_settings_of_a_custom_key_reach_the_optimizer_and_leave_the_rest() -> None:
    with torch.device("meta"):
        model = Dense(timm.create_model(ENCODERS["nano"].timm_name, num_classes=0))
    keys = {"layer_decay": 0.5, "custom_keys": {"decode_head": {"betas": (0.5, 0.9)}}}
    constructor = dict(type="LayerDecayConstructor", optim_wrapper_cfg=OPTIMIZER, paramwise_cfg=keys)
    groups = OPTIM_WRAPPER_CONSTRUCTORS.build(constructor)(model).optimizer.param_groups
    head = set(model.decode_head.parameters())
    for group in groups:
        assert (group["betas"] == (0.5, 0.9)) == all(parameter in head for parameter in group["params"])
    assert {group["weight_decay"] for group in groups if group["lr"] == 1.0} == {0.0, 0.1}


def test_a_shared_parameter_is_in_one_group() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    assert len(rates(model, 0.5)) == 3


@pytest.mark.parametrize(
    ("keys", "optimizer", "message"),
    [
        (
            {"layer_decay": 0.5, "custom_key": {}},
            {"lr": 1.0},
            "paramwise_cfg: found custom_key, expected layer_decay or",
        ),
        ({"decay_rate": 0.9, "num_layers": 12}, {"lr": 1.0}, "found decay_rate, num_layers, expected layer_decay"),
        ({"layer_decay": 0}, {"lr": 1.0}, r"paramwise_cfg\.layer_decay: found 0, expected a number above 0"),
        ({"layer_decay": "0.5"}, {"lr": 1.0}, r"paramwise_cfg\.layer_decay: found '0\.5', expected a number"),
        ({"layer_decay": 0.5}, {}, r"optimizer\.lr: found none"),
    ],
)
def test_what_the_constructor_does_not_know_is_refused(
    keys: dict[str, Any], optimizer: dict[str, float], message: str
) -> None:
    wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", **optimizer))
    with pytest.raises(ValueError, match=message):
        OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(type="LayerDecayConstructor", optim_wrapper_cfg=wrapper, paramwise_cfg=keys)
        )


def test_without_paramwise_cfg_nothing_decays_by_layer() -> None:
    with torch.device("meta"):
        model = Dense(timm.create_model(ENCODERS["nano"].timm_name, num_classes=0))
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(type="LayerDecayConstructor", optim_wrapper_cfg=OPTIMIZER))
    assert groups_of(constructor, model) == rates(model, 1.0)
