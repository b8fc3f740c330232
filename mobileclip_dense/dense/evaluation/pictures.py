"""The pictures of an evaluation: the confusion matrix, and the worst predictions beside the ground truth."""

import io
import warnings
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from mobileclip_dense.artifact.palette import colour_classes, colour_depth
from mobileclip_dense.dense.evaluation.validation_set import View

_MAX_CLASSES_WITH_NUMBERS = 25  # with more classes, a cell of the confusion matrix is too small for a number
_PANEL_INCHES, _DPI = 3.2, 110
_WRONG, _UNKNOWN = (225, 30, 30), (35, 35, 35)
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # file names may contain a dollar sign
    "font.size": 8.0,
    "axes.titlesize": 9.0,
}

Pixels = npt.NDArray[np.uint8]
Palette = list[tuple[int, int, int]]


def draw_confusion(confusion: npt.NDArray[np.int64], names: list[str]) -> bytes:
    """PNG: the share of the pixels of each true class (row) that are predicted as each class (column).

    Args:
        confusion: [C,C], rows truth, columns prediction.
        names: names of the C classes.
    """
    num_pixels = confusion.sum(1, keepdims=True)
    shares = np.divide(100 * confusion, num_pixels, out=np.full(confusion.shape, np.nan), where=num_pixels > 0)
    few = len(names) <= _MAX_CLASSES_WITH_NUMBERS
    side = 2.5 + len(names) * (0.42 if few else 0.14)
    with matplotlib.rc_context(_STYLE | ({} if few else {"font.size": 6.5})):
        figure = Figure(figsize=(side + 0.9, side), layout="constrained")
        axes = figure.add_subplot()
        axes.set_facecolor("0.85")  # rows of classes that do not occur
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        labels = [_printable(name) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=90)
        axes.set_yticks(range(len(names)), labels)
        axes.tick_params(top=not few, labeltop=not few, right=not few, labelright=not few, length=2)
        axes.set_title("Share of a class's pixels, by predicted class", fontsize=11)
        axes.set_xlabel("predicted", fontsize=11)
        axes.set_ylabel("truth", fontsize=11)
        for row, column in zip(*np.nonzero(shares >= 0.5), strict=True) if few else ():
            share = shares[row, column]
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color="w" if share > 55 else "0.15")
        figure.colorbar(shown, ax=axes, shrink=0.4, aspect=30, label="%")
        return _png(figure)


def draw_classes(view: View, figures: dict[str, Any], names: list[str], palette: Palette) -> bytes:
    """PNG: photograph, truth, prediction and wrong pixels, with a legend of the classes in the image.

    Args:
        figures: name, mIoU and aAcc of the image.
        names, palette: names and colours of all classes.
    """
    known = view.truth < len(names)
    grey = np.asarray(Image.fromarray(view.photograph).convert("L"))[..., None].repeat(3, axis=2)
    errors = np.where(known[..., None], grey, np.array(_UNKNOWN, np.uint8))
    wrong = known & (view.predicted != view.truth)
    errors[wrong] = 0.35 * grey[wrong] + 0.65 * np.array(_WRONG)
    present = np.union1d(view.truth[known], view.predicted)
    panels = [
        ("photograph", view.photograph),
        ("truth", colour_classes(view.truth, palette)),
        ("prediction", colour_classes(view.predicted, palette)),
        ("wrong (red), not labelled (black)", errors),
    ]
    caption = f"{figures['name']}: mIoU {figures['mIoU']:.1f} %, accuracy {figures['aAcc']:.1f} %"
    with matplotlib.rc_context(_STYLE):
        columns = min(9, len(present))
        figure, _ = _panels(panels, caption, below_inches=0.18 * -(-len(present) // columns) + 0.1)
        patches = [
            Patch(color=np.divide(palette[index], 255), label=_printable(names[index])[:20]) for index in present
        ]
        figure.legend(handles=patches, ncols=columns, loc="outside lower center", frameon=False, handlelength=1.2)
        return _png(figure)


def draw_depth(view: View, figures: dict[str, Any], max_depth_m: float) -> bytes:
    """PNG: photograph, truth and prediction in metres on one colour scale, and their difference.

    Args:
        figures: name, rmse, abs_rel and d1 of the image.
        max_depth_m: readings of this depth or more are ignored, metres.
    """
    known = (view.truth > 0) & (view.truth < max_depth_m)
    counted = np.concatenate([view.truth[known], view.predicted[known]])
    near, far = float(counted.min()), float(counted.max())
    error = np.where(known, view.predicted - view.truth, 0)
    limit = max(float(np.percentile(np.abs(error[known]), 98)), 0.01)
    signed = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    difference = np.where(known[..., None], signed.to_rgba(error, bytes=True)[..., :3], np.array(_UNKNOWN, np.uint8))
    panels = [
        ("photograph", view.photograph),
        ("truth (black: not counted)", colour_depth(np.where(known, view.truth, 0), near, far)),
        ("prediction", colour_depth(np.maximum(view.predicted, 1e-3), near, far)),
        ("prediction - truth", difference),
    ]
    caption = (
        f"{figures['name']}: RMSE {figures['rmse']:.3f} m, AbsRel {figures['abs_rel']:.3f}, d1 {figures['d1']:.3f}"
    )
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels(panels, caption, below_inches=0.45)
        ramp = ListedColormap(colour_depth(np.linspace(near, far, 256)[None], near, far)[0] / 255)
        metres = ScalarMappable(Normalize(near, far), ramp)
        below: dict[str, Any] = dict(orientation="horizontal", fraction=0.05, pad=0.03)
        figure.colorbar(metres, ax=axes[1:3], aspect=60, label="m", **below)
        invisible = figure.colorbar(metres, ax=axes[0], aspect=30, label="m", **below)
        invisible.ax.set_visible(False)  # gives the photograph the same height as the other panels
        figure.colorbar(signed, ax=axes[3], aspect=30, label="m (red: predicted too far)", **below)
        return _png(figure)


def _panels(panels: list[tuple[str, Pixels]], caption: str, below_inches: float) -> tuple[Figure, list[Axes]]:
    height, width = panels[0][1].shape[:2]
    tall = _PANEL_INCHES * min(max(height / width, 0.3), 2.0)
    figure = Figure(figsize=(_PANEL_INCHES * len(panels), tall + 0.6 + below_inches), layout="constrained")
    figure.suptitle(_printable(caption), fontsize=10)
    axes = list(figure.subplots(1, len(panels)))
    for each, (title, picture) in zip(axes, panels, strict=True):
        each.imshow(picture)
        each.set_title(title)
        each.set_axis_off()
    return figure, axes


def _printable(text: str) -> str:
    """`text` with characters that cannot be encoded replaced."""
    return text.encode("utf-8", "replace").decode()


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # characters missing from the font are drawn as boxes
        figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()
