"""The channels and attention heads of a dense model that can be pruned, with the layers that depend on them.

torch-pruning's dependency graph finds the dependent layers. These kinds of units are pruned:

    mlp      hidden channels of every ConvMlp: outputs of fc1, inputs of fc2
    heads    attention heads: their rows of q, k and v, their inputs of the projection; head_dim does not change
    squeeze  hidden channels of squeeze-and-excitation
    neck     FPN: the sum of the lateral convolutions (one set for all), the outputs of each smoothing convolution
    head     the channels in `HeadSpec.prunable`: inner channels of SemanticFPN and fpn_lite; other heads have none
    width    the residual channels of all stages, with every branch of every block, every LayerScale,
             squeeze-and-excitation, and the layers of neck, head and auxiliary head that read them

The width is pruned in all stages together. A downsampling convolution has one group per input and m outputs per group,
so input c has the outputs m c .. m c + m - 1. The 1x1 block after it has an identity branch, which ties its outputs to
its inputs. A channel of the stem therefore determines m channels of the second stage, and so on to the last stage.
The channels of images, class scores and depth are not pruned.

The importance of a channel is torch-pruning's group magnitude: the sum of squares of the weights that write or read it,
divided by its mean over the layer so that layers are comparable. Every layer keeps at least _MIN_SHARE of its channels:
magnitudes say little about the last channels of a layer, and a layer with almost no channels blocks the network. To
prune further, fine-tune the pruned model and prune it again.
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

# Vector units and the Neural Engine process channels in blocks of 8: 9 channels cost as much as 16.
CHANNEL_MULTIPLE = 8
_MIN_SHARE = 0.5
_TRACED_PX = 64


class _DownsamplingConv(nn.Conv2d):
    """Marks convolutions with groups = inputs and outputs = m x inputs, on which torch-pruning raises IndexError."""


class _DownsamplingPruner(torch_pruning.pruner.function.ConvPruner):
    """Prunes inputs and outputs in separate steps. `Unit.roots` keeps them consistent."""

    def prune_in_channels(self, layer: nn.Conv2d, idxs: list[int]) -> nn.Conv2d:
        layer.in_channels -= len(idxs)
        layer.groups -= len(idxs)
        return layer  # the weight [out, 1, k, k] has one input per output, so it does not change

    def prune_out_channels(self, layer: nn.Conv2d, idxs: list[int]) -> nn.Conv2d:
        return super().prune_out_channels(layer, idxs)

    def get_in_channel_groups(self, layer: nn.Conv2d) -> int:
        return 1

    get_out_channel_groups = get_in_channel_groups


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A set of channels (or heads) that can be pruned individually, with the outputs that belong to each.

    Attributes:
        name: the module whose outputs they are.
        kind: see the module's docstring.
        step: the number of remaining channels is a multiple of this.
        roots: module name -> int64 [size,k], the k outputs of the module that belong to each channel.
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
        """The smallest allowed number of remaining channels that is at least `kept` and _MIN_SHARE of all."""
        wanted = max(kept, self.size * _MIN_SHARE)
        return min(self.size, math.ceil(wanted / self.step) * self.step)


Kept = dict[str, int]
"""Name of a unit -> number of its channels or heads that remain. All remain in units that are not listed."""


def find_units(model: nn.Module, head: str) -> list[Unit]:
    """Find all units of a dense model that can be pruned, with their importance.

    Args:
        model: a dense model in train form.
        head: name of the model's head, see `config.heads`.

    Raises:
        ValueError: the encoder is not an MCi, or the model is fused.
    """
    trunk = model.get_submodule("backbone.encoder.trunk")
    if not isinstance(trunk, FastVit):
        raise ValueError(f"encoder: found {type(trunk).__name__}, expected an MCi ({', '.join(encoders_of(MCI))})")
    if not unfused_modules(trunk):
        raise ValueError("prune: found a fused model, expected the run that it was fused from")
    model = copy.deepcopy(model)  # tracing marks layers
    graph = _trace(model)
    return [
        Unit(name=next(iter(roots)), kind=kind, step=step, roots=roots, importance=_importance(model, graph, roots))
        for kind, step, roots in _roots(model, head)
    ]


def prune_model(model: nn.Module, units: list[Unit], kept: Kept) -> nn.Module:
    """A pruned copy of the model that keeps the `kept[unit.name]` most important channels or heads of each unit.

    Args:
        model: the model in train form that `find_units` was called with.
        units: its units.
        kept: numbers to keep.
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
    """The outputs of the head and the auxiliary head. The latter is not deployed, but needed for fine-tuning."""
    features = model.extract_feat(image)
    heads = [model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])]
    return [head(features) for head in heads]


def _trace(model: nn.Module) -> Any:
    """Build torch-pruning's dependency graph. Marks the downsampling convolutions of `model`."""
    for conv in _downsampling_convs(model):
        conv.__class__ = _DownsamplingConv
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the graph is derived from autograd's
    scales = [(module.gamma, 0) for module in model.modules() if isinstance(module, LayerScale2d)]
    image = torch.zeros(1, 3, _TRACED_PX, _TRACED_PX, dtype=next(model.parameters()).dtype)
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, image, forward_fn=_predict_all, unwrapped_parameters=scales,
            customized_pruners={_DownsamplingConv: _DownsamplingPruner()},
        )  # fmt: skip
    # torch-pruning treats LayerScale, which has three axes, as a position embedding, and later concatenations as
    # concatenations of tokens.
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
    """Importance float [size]: the mean over the roots and over the outputs of each channel."""
    magnitude = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="mean")
    scores = []
    for root, outputs in roots.items():
        every = torch.arange(outputs.numel())
        scores.append(magnitude(_group(model, graph, root, every))[outputs].mean(dim=1))
    return torch.stack(scores).mean(dim=0)


def _roots(model: Any, head: str) -> list[tuple[Kind, int, dict[str, torch.Tensor]]]:
    """Kind, step and roots of all units."""
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
