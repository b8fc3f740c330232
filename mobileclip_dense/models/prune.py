"""Structured pruning of a dense model in train form to a target cost. The result is a smaller dense model.

`prunable` defines the units that can be pruned. Importances are ranked over all layers of a kind. Every kind loses
about the same share, and within a kind, layers with less important channels lose more. The width affects all layers and
changes in coarse steps (a tenth of MCi2), so it is pruned only as far as the other kinds cannot reach the target.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mobileclip_dense.models.prunable import Kept, Unit, prune_model
from mobileclip_dense.pages.progress import progress_bar

_BISECTIONS = 10  # to a thousandth of the channels, which is finer than their rounding
_NEAR = 0.02  # stop adding channels back this close below the target


def count_params(model: nn.Module) -> int:
    """Number of parameters, without BatchNorm statistics."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size_px: tuple[int, int]) -> int:
    """Number of multiply-accumulates in convolutions and matrix products for an image of this height and width."""
    shapes: Any = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _predict(shapes, torch.empty(1, 3, *size_px, device="meta"))
    return int(counter.get_total_flops()) // 2


def search_target(
    model: nn.Module, units: list[Unit], cost_share: Callable[[nn.Module], float], target: float
) -> tuple[nn.Module, Kept]:
    """Prune as little as possible for a cost of at most `target`.

    Args:
        model: the model that `find_units` was called with.
        units: its units.
        cost_share: function (pruned copy) -> cost as a share of the model's, 0..1.
        target: maximum share, 0..1.

    Returns:
        The pruned copy, and the number of channels or heads it keeps of each unit.

    Raises:
        ValueError: the cost is above the target even with _MIN_SHARE of every unit. The message gives the lowest cost.
    """
    (width,) = (unit for unit in units if unit.kind == "width")
    for width_kept in range(width.size, width.rounded(0) - 1, -width.step):
        kept = _plan(units, 1.0) | {width.name: width_kept}
        best = prune_model(model, units, kept)
        if (reached := cost_share(best)) <= target:
            break
    else:
        smallest = math.ceil(reached * 1000) / 1000
        raise ValueError(f"target: found {target:g}, expected at least {smallest:g}: half of every layer's channels "
                         f"cost {reached:.3f}; prune in several steps, with fine-tuning in between")  # fmt: skip
    low, high = 0.0, 1.0
    for _ in progress_bar(range(_BISECTIONS), "prune", unit="trial"):
        ratio = (low + high) / 2
        tried = _plan(units, ratio) | {width.name: width_kept}
        candidate = prune_model(model, units, tried)
        if cost_share(candidate) <= target:
            high, best, kept = ratio, candidate, tried
        else:
            low = ratio
    for unit in units:  # steps are large in a small model; add channels back while the target allows it
        if cost_share(best) > target - _NEAR:
            break
        tried = kept | {unit.name: min(unit.size, kept[unit.name] + unit.step)}
        candidate = prune_model(model, units, tried)
        if cost_share(candidate) <= target:
            best, kept = candidate, tried
    return best, kept


def _plan(units: list[Unit], ratio: float) -> Kept:
    """The numbers to keep when the least important `ratio` of each kind is pruned, without the width."""
    kept: Kept = {}
    for kind in {unit.kind for unit in units} - {"width"}:
        of_kind = [unit for unit in units if unit.kind == kind]
        ranked = torch.cat([unit.importance for unit in of_kind]).sort().values
        num_dropped = int(ratio * len(ranked))
        threshold = ranked[num_dropped] if num_dropped < len(ranked) else torch.inf
        for unit in of_kind:
            kept[unit.name] = unit.rounded(int((unit.importance >= threshold).sum()))
    return kept


def _predict(model: Any, image: torch.Tensor) -> torch.Tensor:
    prediction: torch.Tensor = model.decode_head(model.extract_feat(image))
    return prediction
