"""`mobileclip-dense analyze attention-distance`: the attention distance of the layers of runs.

It reproduces figure 3 of arXiv 2405.08911.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from mobileclip_dense.analysis.attention import attention_distance, attention_layers, grid_of, watch_attention
from mobileclip_dense.analysis.image_tower import ImageTower, load_image_tower, load_images
from mobileclip_dense.analysis.receptive_field import field_centre, field_radius, receptive_fields
from mobileclip_dense.artifact.files import figures_beside, staged_file, write_json
from mobileclip_dense.config import AttentionDistanceConfig
from mobileclip_dense.pages.progress import progress_bar

_SHARE = 0.95  # of the squared gradient inside the radius of a receptive field
_STYLE: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 12}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The figures of an attention layer, means over the images.

    Attributes:
        block: number of its block among the residual blocks of the network, from 1.
        depth: the same as a share of all blocks, 0..1.
        distances_px: attention distance of each head.
        prefix_shares: share of each head's attention to the class token.
    """

    block: int
    depth: float
    distances_px: list[float]
    prefix_shares: list[float]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The attention distances and receptive fields of a run.

    Attributes:
        tower: its image tower.
        layers: the attention layers.
        fields: receptive field [H,W] of each stage of an MCi. Empty for a ViT.
        radii_px: for each field, the radius that encloses _SHARE of it.
        grids: rows and columns of the map of each stage.
    """

    tower: ImageTower
    layers: list[Layer]
    fields: list[Tensor]
    radii_px: list[float]
    grids: list[tuple[int, int]]


def analyze_attention_distance(config: AttentionDistanceConfig) -> None:
    """Write the picture and, beside it, its figures as JSON.

    Raises:
        FileNotFoundError, ValueError: a run or an image cannot be read, or a run has no supported attention layer;
            --out is a .json file.
        FileExistsError: the picture or its JSON exists and --force was not given.
    """
    figures = figures_beside(config.out, config.force)
    images = load_images(config.images, config.max_images)
    towers = [load_image_tower(folder) for folder in config.runs]
    for tower, folder in zip(towers, config.runs, strict=True):
        if not attention_layers(tower.blocks):
            raise ValueError(
                f"{folder}: attention: found no attention layer in its {type(tower.trunk).__name__}, "
                "expected a run of a ViT or an MCi"
            )
    reaches = [measure_reach(tower, [tower.prepare(image) for image in images]) for tower in towers]
    with staged_file(config.out) as staging, matplotlib.rc_context(_STYLE):
        draw(reaches).savefig(staging, dpi=150, format="png")
    write_json(figures, {"num_images": len(images), "runs": [_record(r) for r in reaches]})
    for reach in reaches:
        first, last = (float(np.mean(layer.distances_px)) for layer in (reach.layers[0], reach.layers[-1]))
        fields = "".join(f", stage {i + 1} {radius:.0f} px" for i, radius in enumerate(reach.radii_px))
        print(
            f"{reach.tower.name}: attention distance {first:.1f} px in the first layer, {last:.1f} px in the last"
            + (f"; radius of the receptive field{fields}" if fields else "")
        )
    print(f"{config.out}: {len(reaches)} runs, {len(images)} images")


def measure_reach(tower: ImageTower, images: list[Tensor]) -> Reach:
    """Measure the attention distance of every layer and, for an MCi, the receptive field of every stage.

    Args:
        tower: the image tower.
        images: images prepared by `ImageTower.prepare`.
    """
    indices, layers = zip(*attention_layers(tower.blocks), strict=True)
    sums: dict[int, Tensor] = {}  # of each layer [2,heads]: distances, shares

    def add(index: int, attention: Tensor) -> None:
        grid = grid_of(attention.shape[-1], num_prefix_tokens(tower), tower.size_px)
        found = torch.stack(attention_distance(attention, grid, tower.size_px[0] / grid[0])).double()
        sums[index] = sums.get(index, torch.zeros_like(found)) + found

    with watch_attention(list(layers), add), torch.no_grad():
        for image in progress_bar(images, f"{tower.name}: attention", unit="image", leave=False):
            tower.module(image)
    num_blocks = len(tower.blocks)
    measured = [
        Layer(block=indices[i] + 1, depth=(indices[i] + 1) / num_blocks,
              distances_px=(sums[i][0] / len(images)).tolist(), prefix_shares=(sums[i][1] / len(images)).tolist())
        for i in sorted(sums)
    ]  # fmt: skip
    if tower.is_plain_vit:
        return Reach(tower=tower, layers=measured, fields=[], radii_px=[], grids=[])
    with torch.no_grad():
        grids = [(found.shape[2], found.shape[3]) for found in tower.maps(images[0])]
    fields = receptive_fields(tower.maps, progress_bar(images, f"{tower.name}: gradients", unit="image", leave=False))
    radii = [field_radius(field, grid, _SHARE) for field, grid in zip(fields, grids, strict=True)]
    return Reach(tower=tower, layers=measured, fields=fields, radii_px=radii, grids=grids)


def num_prefix_tokens(tower: ImageTower) -> int:
    """The number of tokens before the patches: the class token and registers of a ViT, none in an MCi."""
    if not tower.is_plain_vit:
        return 0
    return int(getattr(tower.trunk, "num_prefix_tokens", 1))  # open_clip's ViT has a class token but no attribute


def _record(reach: Reach) -> dict[str, Any]:
    stages = zip(reach.tower.map_names, reach.grids, reach.radii_px, strict=False)
    height = reach.tower.size_px[0]
    return {
        "run": reach.tower.name,
        "network": type(reach.tower.trunk).__name__,
        "size_px": list(reach.tower.size_px),
        "attention": [
            {"block": layer.block, "depth": layer.depth, "mean_distance_px": float(np.mean(layer.distances_px)),
             "distances_px": layer.distances_px, "class_token_shares": layer.prefix_shares}
            for layer in reach.layers
        ],
        "receptive_field": {
            "share": _SHARE,
            "stages": [{"stage": name, "stride_px": height / grid[0], "radius_px": px} for name, grid, px in stages],
        } if reach.fields else None,
    }  # fmt: skip


def draw(reaches: list[Reach]) -> Figure:
    """Draw distance against depth, a dot per head and a curve of means per run. Below, a row of fields per MCi."""
    with_fields = [(number, reach) for number, reach in enumerate(reaches) if reach.fields]
    heights = [3.9 + 0.22 * len(reaches), *(2.15 for _ in with_fields)]
    figure = Figure(figsize=(6.5, sum(heights)), layout="constrained")
    columns = max((len(reach.fields) for _, reach in with_fields), default=1)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    _draw_distances(figure.add_subplot(grid[0, :]), reaches)
    for row, (number, reach) in enumerate(with_fields, start=1):
        for column, field in enumerate(reach.fields):
            axes = figure.add_subplot(grid[row, column])
            _draw_field(axes, field, reach.grids[column], reach.radii_px[column], f"C{number % 10}")
            stride = reach.tower.size_px[0] // reach.grids[column][0]
            axes.set_title(f"stage {column + 1}, stride {stride}", fontsize=10)
            if column == 0:
                axes.set_ylabel(_short(reach.tower.name, 18), color=f"C{number % 10}")
    if with_fields:
        figure.supxlabel(
            f"receptive field (magnitude of the gradient); circle: {_SHARE:.0%} of the squared gradient", fontsize=10
        )
    return figure


def _draw_distances(axes: Axes, reaches: list[Reach]) -> None:
    for number, reach in enumerate(reaches):
        depths = [layer.depth for layer in reach.layers]
        height, width = reach.tower.size_px
        size = f"{height}" if height == width else f"{height}x{width}"
        colour = f"C{number % 10}"
        for layer in reach.layers:
            axes.scatter(
                [layer.depth] * len(layer.distances_px), layer.distances_px, s=14, alpha=0.4, color=colour, linewidths=0
            )
        means = [float(np.mean(layer.distances_px)) for layer in reach.layers]
        axes.plot(depths, means, color=colour, marker="o", markersize=6, markeredgecolor="white",
                  label=f"{_short(reach.tower.name, 32)} ({size} px)")  # fmt: skip
    highest = max(distance for reach in reaches for layer in reach.layers for distance in layer.distances_px)
    axes.set(xlim=(0, 1.04), ylim=(0, 1.08 * highest + 1), xlabel="depth in the network (share of its blocks)",
             ylabel="mean attention distance, pixels")  # fmt: skip
    axes.grid(alpha=0.25)
    axes.set_title("Attention distance (dot: a head, curve: mean)", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)


def _draw_field(axes: Axes, field: Tensor, grid: tuple[int, int], radius_px: float, colour: str) -> None:
    height, width = field.shape
    y, x = field_centre((height, width), grid)
    axes.imshow(field.sqrt().numpy(), cmap="magma")
    axes.add_patch(Circle((x, y), radius_px, fill=False, color=colour, linewidth=1.5))
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_xlabel(f"{radius_px:.0f} px", fontsize=10)


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
