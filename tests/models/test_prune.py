"""A pruned model has the same outputs as the whole model with the pruned channels set to zero."""

import copy
import dataclasses
import json
from collections.abc import Iterator

import pytest
import torch
from timm.models.fastvit import LayerScale2d
from torch import nn

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.dense.model import build_model
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.prunable import CHANNEL_MULTIPLE, Unit, find_units, prune_model
from mobileclip_dense.models.prune import count_macs, count_params, search_target
from mobileclip_dense.models.reparam import fuse_model, unfused_modules
from mobileclip_dense.models.structure import apply_structure, structure_difference
from mobileclip_dense.recipes.finetuning import RECIPES
from tests.models.test_reparam import randomize, relative_error

STEM = "backbone.encoder.trunk.stem.0.conv_kxk.0.conv"
ATTENTION = "backbone.encoder.trunk.stages.3.blocks.0"


def dense(recipe: str) -> nn.Module:
    return randomize(build_model(RECIPES[recipe](), 5))


@torch.no_grad()
def predict(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    return model.decode_head(model.extract_feat(image))


def halved(model: nn.Module, head: str = "semantic_fpn") -> nn.Module:
    """The model with about half of every unit, the width included."""
    units = find_units(model, head)
    return prune_model(model, units, {unit.name: unit.rounded(unit.size / 2) for unit in units})


@pytest.fixture(scope="module")
def nano() -> nn.Module:
    return dense("nano-segment").double()


@pytest.mark.parametrize("recipe", ["nano-segment", "nano-depth", "mci0-segment", "mci2-fpn-ade20k"])
def test_a_pruned_model_fuses_exactly_and_rebuilds_from_its_structure(recipe: str) -> None:
    model = dense(recipe)
    pruned = halved(model)
    assert count_params(pruned) < 0.35 * count_params(model)
    rebuilt = build_model(RECIPES[recipe](), 5).eval()
    structure = json.loads(json.dumps(structure_difference(pruned, model)))
    apply_structure(rebuilt, structure)
    rebuilt.load_state_dict(pruned.state_dict())
    for name, changes in structure.items():
        counts = {key: value for key, value in changes.items() if key != "num_heads"}
        assert all(value % CHANNEL_MULTIPLE == 0 for value in counts.values()), (name, changes)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        image = torch.rand(1, 3, 64, 96, dtype=dtype)
        expected = predict(pruned.to(dtype), image)
        assert torch.equal(predict(rebuilt.to(dtype), image), expected)
        fused = fuse_model(rebuilt)
        assert relative_error(predict(fused, image), expected) <= bound
        assert not unfused_modules(fused)


def test_what_goes_are_the_hidden_channels_of_least_magnitude(nano: nn.Module) -> None:
    name = "backbone.encoder.trunk.stages.2.blocks.1.mlp"
    block = nano.get_submodule(name)
    magnitude = block.fc1.weight.flatten(1).square().sum(1) + block.fc2.weight.flatten(1).square().sum(0)
    pruned = prune_model(nano, find_units(nano, "semantic_fpn"), {f"{name}.fc1": 160})
    x = torch.randn(2, 96, 6, 6, dtype=torch.float64)
    masked = mask(block, "fc2", magnitude.argsort()[:-160])
    assert pruned.get_submodule(name).fc1.out_channels == 160
    with torch.no_grad():
        assert relative_error(pruned.get_submodule(name)(x), masked(x)) <= 1e-12
        assert relative_error(masked(x), block(x)) > 1e-3


def test_whole_attention_heads_go(nano: nn.Module) -> None:
    name = ATTENTION
    block = nano.get_submodule(name)
    attention = block.token_mixer
    rows = attention.qkv.weight.square().sum(1).reshape(3, 6, 32).sum((0, 2))
    magnitude = rows + attention.proj.weight.square().sum(0).reshape(6, 32).sum(1)
    weakest = magnitude.argsort()[:2]
    pruned = prune_model(nano, find_units(nano, "semantic_fpn"), {f"{name}.token_mixer.qkv": 4}).get_submodule(name)
    assert (pruned.token_mixer.num_heads, pruned.token_mixer.head_dim) == (4, 32)
    assert pruned.token_mixer.qkv.weight.shape == (3 * 4 * 32, 192)
    inputs = (weakest[:, None] * 32 + torch.arange(32)).flatten()
    x = torch.randn(2, 192, 3, 5, dtype=torch.float64)
    masked = mask(block, "token_mixer.proj", inputs)
    with torch.no_grad():
        assert relative_error(pruned(x), masked(x)) <= 1e-12
        assert relative_error(masked(x), block(x)) > 1e-3


def mask(block: nn.Module, reader: str, inputs: torch.Tensor) -> nn.Module:
    """A copy of the block in which one layer does not read some of its inputs."""
    clone = copy.deepcopy(block)
    clone.get_submodule(reader).weight.data[:, inputs] = 0
    return clone


def silence(module: nn.Module, channels: list[int]) -> None:
    """Set channels of a layer to zero, by zeroing scale and bias of its norm or convolution."""
    for tensor in (module.weight, module.bias):
        if tensor is not None:
            tensor.data[channels] = 0


def silent_residual(model: nn.Module, stem_channels: list[int]) -> None:
    """Set these channels of the stem, and the channels of later stages that depend on them, to zero."""
    trunk = model.backbone.encoder.trunk
    parts: list[tuple[nn.Module, int]] = [(trunk.stem, 1)]
    parts += [(stage, width // 16) for stage, width in zip(trunk.stages, (16, 32, 96, 192), strict=True)]
    for part, owned in parts:
        channels = [owned * c + i for c in stem_channels for i in range(owned)]
        for name, module in part.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                silence(module, channels)
            elif isinstance(module, LayerScale2d):
                module.gamma.data[channels] = 0
            elif name.endswith("pos_enc"):
                module.bias.data[channels] = 0


def silences(model: nn.Module) -> Iterator[tuple[str, str, list[nn.Module]]]:
    """Kind, root of the unit, and every layer that writes its channels; of the head, the norms before the sum."""
    trunk, neck, heads = model.backbone.encoder.trunk, model.neck, model.decode_head.scale_heads
    yield (
        "squeeze",
        "backbone.encoder.trunk.stages.3.downsample.proj.0.se.fc1",
        [trunk.stages[3].downsample.proj[0].se.fc1],
    )
    yield "neck", "neck.lateral_convs.0.conv", [level.conv for level in neck.lateral_convs]
    yield "neck", "neck.fpn_convs.2.conv", [neck.fpn_convs[2].conv]
    yield "head", "decode_head.scale_heads.0.0.conv", [heads[0][0].bn, heads[1][0].bn, heads[2][2].bn, heads[3][4].bn]
    yield "head", "decode_head.scale_heads.3.2.conv", [heads[3][2].bn]


def forced(units: list[Unit], name: str, dropped: list[int]) -> list[Unit]:
    """The unit with an importance that makes `dropped` the least important channels."""
    (unit,) = (unit for unit in units if unit.name == name)
    importance = torch.ones(unit.size)
    importance[dropped] = 0
    return [dataclasses.replace(unit, importance=importance)]


@pytest.mark.parametrize("index", range(5))
def test_channels_that_say_nothing_can_go_from_squeeze_neck_and_head(index: int) -> None:
    model = dense("nano-segment").double()
    units = find_units(model, "semantic_fpn")
    kind, name, writers = list(silences(model))[index]
    dropped = [0, 3, 4, 9, 10, 11, 14, 15]
    for writer in writers:
        silence(writer, dropped)
    unit = forced(units, name, dropped)
    assert unit[0].kind == kind
    pruned = prune_model(model, unit, {name: unit[0].size - 8})
    assert count_params(pruned) < count_params(model)
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    assert relative_error(predict(pruned, image), predict(model, image)) <= 1e-12


def test_residual_channels_that_say_nothing_can_go_from_every_branch_of_all_stages() -> None:
    model = dense("nano-segment").double()
    units = find_units(model, "semantic_fpn")
    dropped = [1, 2, 5, 6, 7, 12, 13, 15]
    silent_residual(model, dropped)
    pruned = prune_model(model, forced(units, STEM, dropped), {STEM: 8})
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    features, expected = pruned.backbone(image), model.backbone(image)
    assert [level.shape[1] for level in features] == [8, 16, 48, 96]
    for level, whole, owned in zip(features, expected, (1, 2, 6, 12), strict=True):
        kept = [owned * c + i for c in range(16) if c not in dropped for i in range(owned)]
        assert relative_error(level, whole[:, kept]) <= 1e-12
    assert relative_error(predict(pruned, image), predict(model, image)) <= 1e-12
    assert relative_error(predict(fuse_model(pruned), image), predict(model, image)) <= 1e-10


@pytest.mark.parametrize("head", ["fpn_lite", "upernet", "linear"])
def test_with_any_head_the_channels_that_say_nothing_can_go(head: str) -> None:
    config = dataclasses.replace(RECIPES["nano-segment"](), head=head)
    model = randomize(build_model(config, 5)).double()
    dropped = [1, 2, 5, 6, 7, 12, 13, 15]
    silent_residual(model, dropped)
    if head == "linear":  # its norms would make something of nothing
        for owned, probe in zip((1, 2, 6, 12), model.decode_head.probes, strict=True):
            probe[0].running_mean[[owned * c + i for c in dropped for i in range(owned)]] = 0
    units = find_units(model, head)
    assert [unit.name for unit in units if unit.kind in ("neck", "head")] == (
        ["decode_head.laterals.0.conv"] if head == "fpn_lite" else []
    )
    pruned = prune_model(model, forced(units, STEM, dropped), {STEM: 8})
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    assert relative_error(predict(pruned, image), predict(model, image)) <= 1e-12
    if head == "upernet":
        features, whole = pruned.extract_feat(image), model.extract_feat(image)
        assert relative_error(pruned.auxiliary_head(features), model.auxiliary_head(whole)) <= 1e-12


def test_the_lite_heads_silent_channels_can_go() -> None:
    model = randomize(build_model(dataclasses.replace(RECIPES["nano-segment"](), head="fpn_lite"), 5)).double()
    dropped = [0, 3, 4, 9, 10, 11, 14, 15]
    for block in model.decode_head.modules():
        if isinstance(block, nn.BatchNorm2d):
            silence(block, dropped)
    unit = forced(find_units(model, "fpn_lite"), "decode_head.laterals.0.conv", dropped)
    assert unit[0].kind == "head"
    pruned = prune_model(model, unit, {unit[0].name: unit[0].size - 8})
    assert count_params(pruned) < count_params(model)
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    assert relative_error(predict(pruned, image), predict(model, image)) <= 1e-12


@pytest.mark.parametrize("head", ["deconv", "linear"])
def test_a_pruned_depth_model_with_any_head_rebuilds_from_its_structure(head: str) -> None:
    config = dataclasses.replace(RECIPES["nano-depth"](), head=head)
    model = randomize(build_model(config, 1))
    pruned = halved(model, head)
    rebuilt = build_model(config, 1).eval()
    apply_structure(rebuilt, json.loads(json.dumps(structure_difference(pruned, model))))
    rebuilt.load_state_dict(pruned.state_dict())
    image = torch.rand(1, 3, 64, 96)
    assert torch.equal(predict(rebuilt, image), predict(pruned, image))
    first = pruned.decode_head.decoder.deconv_layers[0] if head == "deconv" else pruned.decode_head.probes[3][1]
    assert first.in_channels == 96


def test_multiply_accumulates_are_those_of_the_layers(nano: nn.Module) -> None:
    counted = []

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        positions = output.numel() // layer.weight.shape[0]
        counted.append(positions * layer.weight.numel())

    hooks = [m.register_forward_hook(count) for m in nano.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    predict(nano, torch.rand(1, 3, 64, 96, dtype=torch.float64))
    for hook in hooks:
        hook.remove()
    attention = 2 * (2 * 3) ** 2 * 192  # two products of 6 positions with 6, 192 channels in all
    assert count_macs(nano, (64, 96)) == sum(counted) + attention


@pytest.mark.parametrize("target", [0.9, 0.7, 0.5, 0.3])
def test_the_target_is_met_from_below(nano: nn.Module, target: float) -> None:
    units = find_units(nano, "semantic_fpn")
    whole = count_params(nano)
    pruned, kept = search_target(nano, units, lambda model: count_params(model) / whole, target)
    assert target - 0.025 <= count_params(pruned) / whole <= target
    for unit in units:
        assert kept[unit.name] * 2 >= unit.size
        assert kept[unit.name] % unit.step == 0
    assert kept[STEM] == (16 if target > 0.5 else 8)  # the width comes last


def test_a_target_out_of_reach_is_refused_with_the_smallest_that_is_not(nano: nn.Module) -> None:
    smallest = count_params(halved(nano)) / count_params(nano)
    with pytest.raises(ValueError, match=rf"expected at least 0\.\d+: .* cost {smallest:.3f}; prune in"):
        search_target(
            nano, find_units(nano, "semantic_fpn"), lambda model: count_params(model) / count_params(nano), 0.1
        )


def test_only_an_mci_in_train_form_is_pruned(nano: nn.Module) -> None:
    with pytest.raises(ValueError, match="found a fused model"):
        find_units(fuse_model(nano), "semantic_fpn")
    swin = nn.Module()
    swin.backbone = nn.Module()
    with torch.device("meta"):
        swin.backbone.encoder = Encoder("swin_l")
    with pytest.raises(ValueError, match="found SwinTransformer, expected an MCi"):
        find_units(swin, "upernet")


def test_a_structure_of_another_model_is_refused() -> None:
    for structure, message in (
        ({"stages.9": {"out_channels": 8}}, "found out_channels, which this architecture does not have"),
        ({STEM: {"out_channels": 24}}, "found 24, expected a whole number from 1 to 16"),
        ({STEM: {"out_channels": 0}}, "found 0, expected"),
        ({STEM: {"out_channels": True}}, "found True, expected"),
        ({f"{ATTENTION}.token_mixer": {"num_heads": 4}}, "expected 384 and 128 for 4 heads"),
        ({"backbone.encoder.trunk.stem.1.conv_kxk.0.conv": {"groups": 5}}, "expected multiples of the groups"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_structure(build_model(RECIPES["nano-segment"](), 5), structure)
