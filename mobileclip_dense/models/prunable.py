"""The channels and attention heads of a dense model that can be pruned, with all that hangs together with each.

torch-pruning's dependency graph finds what hangs together. What is pruned, each kind with what follows it:

    mlp      hidden channels of every ConvMlp: outputs of fc1, inputs of fc2
    heads    attention heads: their rows of q, k and v, their inputs of the projection; head_dim stays
    squeeze  hidden channels of squeeze-and-excitation
    neck     FPN: the sum of the lateral convolutions (one set for all), the outputs of each smoothing convolution
    head     what `HeadSpec.prunable` names: the inner channels of SemanticFPN and of fpn_lite; other heads have none
    width    the residual channels of all stages together, with every branch of every block, every LayerScale,
             squeeze-and-excitation, and what the neck, the head and an auxiliary head read of them

The width is one decision for all stages. A downsampling convolution has as many groups as inputs and makes m outputs of
each, so input c owns outputs m c .. m c + m - 1; the 1x1 block behind it keeps its identity branch, which ties its
outputs to its inputs. A channel of the stem therefore owns m channels of the second stage, and so on, down to the last.
Images, class scores and depth keep their channels.

The importance of a channel is torch-pruning's group magnitude: the sum of squared weights that make or read it,
divided by its mean in the layer so that layers can be compared. No layer falls below _MIN_SHARE: magnitudes say
little about the last channels of a layer, and one layer pruned to almost nothing would cut the network in two; who
wants less prunes, fine-tunes and prunes again.
"""

import copy
import math
import pkgutil
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch_pruning
from timm.layers import SqueezeExcite
from timm.models.fastvit import Attention, ConvMlp, FastVit, LayerScale2d, ReparamLargeKernelConv
from torch import nn

from mobileclip_dense.config.encoders import MCI, encoders_of
from mobileclip_dense.config.heads import HEADS
from mobileclip_dense.models.reparam import unfused_modules
from mobileclip_dense.models.structure import follow_structure

Kind = Literal["mlp", "heads", "squeeze", "neck", "head", "width"]

# Vector units and the Neural Engine work on channels in blocks of 8; a ninth costs as much as a sixteenth.
CHANNEL_MULTIPLE = 8
_MIN_SHARE = 0.5
_TRACED_PX = 64


class _DownsamplingConv(nn.Conv2d):
    """Marks convolutions with groups = inputs and outputs = m x inputs; torch-pruning fails on them, an IndexError."""


class _DownsamplingPruner(torch_pruning.pruner.function.ConvPruner):
    """Inputs and outputs go in two steps; `Unit.roots` keeps them together."""

    def prune_in_channels(self, layer: nn.Conv2d, idxs: list[int]) -> nn.Conv2d:
        layer.in_channels -= len(idxs)
        layer.groups -= len(idxs)
        return layer  # the weight [out, 1, k, k] has one input per output, whichever it is

    def prune_out_channels(self, layer: nn.Conv2d, idxs: list[int]) -> nn.Conv2d:
        return super().prune_out_channels(layer, idxs)

    def get_in_channel_groups(self, layer: nn.Conv2d) -> int:
        return 1

    get_out_channel_groups = get_in_channel_groups


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Channels (or heads) that can be pruned one by one, with everything that must go with each.

    Attributes:
        name: the module whose outputs they are. kind: see the module's docstring.
        step: the number kept is a multiple of it.
        roots: module name -> int64 [size, k], which k outputs of the module belong to each.
        importance: float [size].
    """

    name: str
    kind: Kind
    step: int
    roots: dict[str, torch.Tensor]
    importance: torch.Tensor

    @property
    def size(self) -> int:
        return len(self.importance)

    def rounded(self, kept: float) -> int:
        """The smallest permitted number that is at least `kept` and _MIN_SHARE of them."""
        wanted = max(kept, self.size * _MIN_SHARE)
        return min(self.size, math.ceil(wanted / self.step) * self.step)


Kept = dict[str, int]
"""How many of a unit stay, by its name; units that are not named stay whole."""


def find_units(model: nn.Module, head: str) -> list[Unit]:
    """Everything that can be pruned in a dense model, with its importance.

    Args:
        head: name of its head, see `config.heads`.

    Raises:
        ValueError: the encoder is no MCi, or the model is fused.
    """
    trunk = model.get_submodule("backbone.encoder.trunk")
    if not isinstance(trunk, FastVit):
        raise ValueError(
            f"encoder: found {type(trunk).__name__}, only an MCi can be pruned: {', '.join(encoders_of(MCI))}"
        )
    if not unfused_modules(trunk):
        raise ValueError("prune: the model is fused already; prune the run it was fused from")
    model = copy.deepcopy(model)  # tracing marks layers
    graph = _trace(model)
    return [
        Unit(name=next(iter(roots)), kind=kind, step=step, roots=roots, importance=_importance(model, graph, roots))
        for kind, step, roots in _roots(model, head)
    ]


def prune_model(model: nn.Module, units: list[Unit], kept: Kept) -> nn.Module:
    """A pruned copy of the model: the most important `kept[unit.name]` of each unit stay.

    Args:
        model: in train form; what `units` were found in.
    """
    pruned = copy.deepcopy(model).eval()
    graph = _trace(pruned)
    for unit in units:
        count = kept.get(unit.name, unit.size)
        assert 1 <= count <= unit.size, unit.name
        if count == unit.size:
            continue
        dropped = unit.importance.argsort(stable=True)[: unit.size - count].sort().values
        for root, outputs in unit.roots.items():
            _group(pruned, graph, root, outputs[dropped]).prune()
        if unit.kind == "heads":
            pruned.get_submodule(unit.name.removesuffix(".qkv")).num_heads = count  # type: ignore[assignment]
    for conv in _downsampling_convs(pruned):
        conv.__class__ = nn.Conv2d
    follow_structure(pruned)
    return pruned


def _predict_all(model: Any, image: torch.Tensor) -> list[torch.Tensor]:
    """With the auxiliary head: it is no part of what is deployed, but it has to fit when training goes on."""
    features = model.extract_feat(image)
    heads = [model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])]
    return [head(features) for head in heads]


def _trace(model: nn.Module) -> Any:
    """torch-pruning's dependency graph; marks the downsampling convolutions of `model`."""
    for conv in _downsampling_convs(model):
        conv.__class__ = _DownsamplingConv
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the graph is read off autograd's
    scales = [(module.gamma, 0) for module in model.modules() if isinstance(module, LayerScale2d)]
    image = torch.zeros(1, 3, _TRACED_PX, _TRACED_PX, dtype=next(model.parameters()).dtype)
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, image, forward_fn=_predict_all, unwrapped_parameters=scales,
            customized_pruners={_DownsamplingConv: _DownsamplingPruner()},
        )  # fmt: skip
    # It takes a LayerScale, of three axes, for a position embedding, and concatenations above it for those of tokens.
    for node in graph.module2node.values():
        node.enable_index_mapping = True
    return graph


def _downsampling_convs(model: nn.Module) -> list[nn.Conv2d]:
    blocks = [module for module in model.modules() if isinstance(module, ReparamLargeKernelConv)]
    return [branch.conv for block in blocks for branch in (block.large_conv, block.small_conv)]


def _group(model: nn.Module, graph: Any, root: str, outputs: torch.Tensor) -> Any:
    module = model.get_submodule(root)
    pruner = graph.get_pruner_of_module(module)
    return graph.get_pruning_group(module, pruner.prune_out_channels, outputs.flatten().tolist())


def _importance(model: nn.Module, graph: Any, roots: dict[str, torch.Tensor]) -> torch.Tensor:
    """float [size]: mean over the roots and the outputs that belong together."""
    magnitude = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="mean")
    scores = []
    for root, outputs in roots.items():
        every = torch.arange(outputs.numel())
        scores.append(magnitude(_group(model, graph, root, every))[outputs].mean(dim=1))
    return torch.stack(scores).mean(dim=0)


def _roots(model: Any, head: str) -> list[tuple[Kind, int, dict[str, torch.Tensor]]]:
    """Kind, step and roots of every unit."""
    names = {module: name for name, module in model.named_modules()}
    found: list[tuple[Kind, int, dict[str, torch.Tensor]]] = []

    def channels(kind: Kind, conv: nn.Conv2d) -> None:
        found.append((kind, CHANNEL_MULTIPLE, {names[conv]: torch.arange(conv.out_channels)[:, None]}))

    stem, chain = model.backbone.encoder.trunk.stem[0].conv_kxk[0].conv, {}
    chain[names[stem]] = torch.arange(stem.out_channels)[:, None]
    for module in model.backbone.encoder.modules():
        match module:
            case ConvMlp():
                channels("mlp", module.fc1)
            case SqueezeExcite():
                channels("squeeze", module.fc1)
            case Attention():
                rows = torch.arange(module.qkv.out_features).reshape(3, module.num_heads, module.head_dim)
                found.append(("heads", 1, {names[module.qkv]: rows.transpose(0, 1).flatten(1)}))
            case ReparamLargeKernelConv():
                conv = module.large_conv.conv
                chain[names[conv]] = torch.arange(conv.out_channels).reshape(stem.out_channels, -1)
    found.append(("width", CHANNEL_MULTIPLE, chain))
    for conv in _neck_convs(model):
        channels("neck", conv)
    if prunable := HEADS[head].prunable:
        for conv in pkgutil.resolve_name(prunable)(model.decode_head):
            channels("head", conv)
    return found


def _neck_convs(model: Any) -> list[nn.Conv2d]:
    if not model.with_neck:
        return []
    return [model.neck.lateral_convs[0].conv, *(smoothing.conv for smoothing in model.neck.fpn_convs)]
