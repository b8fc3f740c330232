"""`mobileclip-dense analyze features`: the principal components of an encoder's maps, as colours."""

import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from mobileclip_dense.analysis.image_tower import ImageTower, load_image_tower
from mobileclip_dense.artifact.files import refuse_existing, staged_file
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.preprocess import crop_image
from mobileclip_dense.config import FeaturesConfig

_NUM_COMPONENTS = 3
_PERCENTILES = (1, 99)  # of a component: the values with colour 0 and 1
_LEGEND = """{name}

Red, green and blue are the first
three principal components of each
map. Similar colours mean similar
features. Colours of different
maps cannot be compared.

"27 + 18 + 14 % of variance":
the shares of the map's variance
that the components explain."""
_STYLE: Any = {"font.size": 11, "axes.titlesize": 10}


@dataclass(frozen=True, kw_only=True)
class Components:
    """The principal components of a map.

    Attributes:
        scores: float64 [h,w,3], with mean 0.
        explained: their shares of the variance, float64 [3].
    """

    scores: npt.NDArray[np.float64]
    explained: npt.NDArray[np.float64]


def principal_components(features: npt.NDArray[np.floating]) -> Components:
    """The first three principal components of a map float [C,h,w] over its h*w positions.

    The sign of a component is arbitrary. Here its loading of largest magnitude is positive, so that the same map always
    has the same colours. If a map has fewer than three components, the others are 0.
    """
    channels, height, width = features.shape
    samples = features.reshape(channels, -1).T.astype(np.float64)  # h*w,C
    samples -= samples.mean(axis=0)
    left, values, loadings = np.linalg.svd(samples, full_matrices=False)
    number = min(_NUM_COMPONENTS, len(values))
    largest = loadings[np.arange(number), np.abs(loadings[:number]).argmax(axis=1)]
    signs = np.where(largest < 0, -1.0, 1.0)
    scores = np.zeros((height * width, _NUM_COMPONENTS))
    scores[:, :number] = left[:, :number] * values[:number] * signs
    explained = np.zeros(_NUM_COMPONENTS)
    explained[:number] = values[:number] ** 2 / max(float((values**2).sum()), 1e-30)
    return Components(scores=scores.reshape(height, width, _NUM_COMPONENTS), explained=explained)


def component_colours(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores [h,w,3] -> RGB in 0..1. Each component is scaled to its range without outliers; a constant one is grey."""
    low, high = np.percentile(scores, _PERCENTILES, axis=(0, 1))
    spread = high - low
    flat = spread <= 1e-12
    colours: npt.NDArray[np.float64] = np.clip((scores - low) / np.where(flat, 1, spread), 0, 1)
    colours[..., flat] = 0.5
    return colours


def analyze_features(config: FeaturesConfig) -> None:
    """Write the picture of the maps of a run's encoder.

    Raises:
        FileNotFoundError, ValueError: the run or the image cannot be read.
        FileExistsError: the picture exists and --force was not given.
    """
    refuse_existing(config.out, config.force, config.image)
    image = load_image(config.image)
    tower = load_image_tower(config.run)
    with torch.inference_mode():
        maps = [found[0].numpy() for found in tower.maps(tower.prepare(image))]
    components = [principal_components(found) for found in maps]
    with staged_file(config.out) as staging, matplotlib.rc_context(_STYLE):
        _draw(tower, crop_image(image, *tower.size_px), maps, components).savefig(staging, dpi=150, format="png")
    for name, found, parts in zip(tower.map_names, maps, components, strict=True):
        channels, height, width = found.shape
        shares = ", ".join(f"{share:.0%}" for share in parts.explained)
        print(f"{name}: {channels} channels, {height}x{width}; the components explain {shares} of the variance")
    print(f"{config.out}: written")


def _draw(
    tower: ImageTower, image: npt.NDArray[np.uint8], maps: list[npt.NDArray[np.floating]], components: list[Components]
) -> Figure:
    """Draw the encoder's input, a legend and the maps, two in a row, so that they fit on the screen of a phone."""
    height, width = tower.size_px
    num_rows = 1 + (len(maps) + 1) // 2
    figure = Figure(figsize=(6.5, num_rows * (3.1 * height / width + 0.5)), layout="constrained")
    axes = figure.subplots(num_rows, 2, squeeze=False).flatten()
    for ax in axes:
        ax.axis("off")
    axes[0].imshow(image, extent=(0, width, height, 0))
    axes[0].set_title(f"input of the encoder\n{height}x{width} px", loc="left")
    axes[1].text(0, 1, _LEGEND.format(name=textwrap.fill(tower.name, 30)), va="top", transform=axes[1].transAxes)
    for ax, name, found, parts in zip(axes[2:], tower.map_names, maps, components, strict=False):
        channels, rows, columns = found.shape
        shares = " + ".join(f"{100 * share:.0f}" for share in parts.explained)
        ax.imshow(component_colours(parts.scores), interpolation="nearest", extent=(0, width, height, 0))
        ax.set_title(
            f"{name}: stride {height // rows}, {channels} channels\n{rows}x{columns}, {shares} % of variance",
            loc="left",
        )
    return figure
