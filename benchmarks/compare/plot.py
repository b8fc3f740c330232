"""Plots of accuracy against size and latency, with log axes, Pareto fronts and labels that do not overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, cos, pi, sin
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from benchmarks.compare.published import PUBLISHED
from benchmarks.compare.rows import Comparison
from mobileclip_dense.artifact.files import staged_file

_INK, _PUBLISHED, _MEASURED = "#333333", "#8a5a00", "#00639a"
_DISTANCES_PT = (6, 12, 20, 30, 42, 56, 72, 90)
_ANGLES = tuple(pi * eighths / 8 for eighths in (2, 14, 6, 10, 0, 8, 4, 12, 1, 3, 5, 7, 9, 11, 13, 15))  # corners first
_CLEAR_PT = 4.0  # around a marker
_PUBLISHED_ITERS = (
    40_000  # the shortest published schedule for ADE20K; shorter runs are not compared with published ones
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model of a panel. `published`: the figure was published by others, and is drawn hollow."""

    x: float
    miou_percent: float
    label: str
    published: bool


Panels = dict[str, list[Point]]  # by data set, and by length where it is ours: what does not compare shares no axis


def parameter_points(comparison: Comparison) -> Panels:
    """Accuracy against millions of parameters; published accuracies are drawn at published numbers of parameters."""
    published = [
        Point(x=item.num_parameters / 1e6, miou_percent=item.value, label=item.model, published=True)
        for item in PUBLISHED
        if item.figure == "miou_percent" and item.num_parameters is not None
    ]
    ours = _row_points(comparison, [row.num_parameters / 1e6 for row in comparison.rows])
    return {"ADE20K": ours.pop("ADE20K", []) + published} | ours


def latency_points(comparison: Comparison) -> Panels:
    """Accuracy against median latency in milliseconds, both measured here; published accuracies have no latency."""
    return _row_points(comparison, [row.p50_ms(comparison.threads) for row in comparison.rows])


def _row_points(comparison: Comparison, xs: Sequence[float]) -> Panels:
    panels: Panels = {}
    for row, x in zip(comparison.rows, xs, strict=True):
        for m in row.measured:
            label = row.label if m.artifact is None else f"{row.label}, on resized images"
            point = Point(x=x, miou_percent=m.miou_percent, label=label, published=False)
            comparable = m.data_set_name == "ADE20K" and m.iters >= _PUBLISHED_ITERS
            title = "ADE20K" if comparable else f"{m.data_set_name}, runs of {m.iters} iterations"
            panels.setdefault(title, []).append(point)
    return panels


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points without another point that is at most as large and at least as accurate, from small to large."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.miou_percent)):
        if not front or point.miou_percent > front[-1].miou_percent:
            front.append(point)
    return front


def draw_panels(panels: Panels, x_label: str, title: str) -> tuple[Figure, dict[str, list[Annotation]]]:
    """Draw a figure. Returns it with the labels of each panel.

    Raises:
        ValueError: there is no free place for a label.
    """
    panels = {name: points for name, points in panels.items() if len(points) > 1}  # one alone compares with nothing
    rows, columns = ceil(max(1, len(panels)) / 2), min(2, max(1, len(panels)))
    figure = Figure(figsize=(6.2 * columns, 4.6 * rows), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11)
    drawn = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in drawn[len(panels) :]:
        unused.remove()
    axes: dict[str, Axes] = dict(zip(panels, drawn, strict=False))
    for data_set, points in panels.items():
        _draw_points(axes[data_set], data_set, points, x_label)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()  # fixes the layout, before labels are placed
    figure.set_layout_engine("none")
    return figure, {data_set: _place_labels(renderer, axes[data_set], points) for data_set, points in panels.items()}


def _draw_points(axes: Axes, data_set: str, points: list[Point], x_label: str) -> None:
    front = pareto_front(points)
    axes.step(
        [p.x for p in front],
        [p.miou_percent for p in front],
        where="post",
        color="#bbbbbb",
        linewidth=1,
        zorder=1,
        label="Pareto front",
    )
    for published, colour, name in ((True, _PUBLISHED, "published by others"), (False, _MEASURED, "measured here")):
        chosen = [point for point in points if point.published == published]
        if chosen:
            axes.scatter(
                [p.x for p in chosen],
                [p.miou_percent for p in chosen],
                s=34,
                zorder=3,
                label=name,
                edgecolors=colour,
                facecolors="white" if published else colour,
            )
    xs, ys = [p.x for p in points], [p.miou_percent for p in points]
    axes.set_xscale("log")
    axes.set_xlim(min(xs) / 2.2, max(xs) * 2.6)
    spread = max(4.0, max(ys) - min(ys))
    axes.set_ylim(min(ys) - 0.35 * spread, max(ys) + 0.2 * spread)
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set(xlabel=x_label, ylabel="mIoU, %", title=data_set)
    axes.grid(color="#eeeeee", zorder=0)
    axes.legend(loc="lower right", fontsize=8, framealpha=1)


def _place_labels(renderer: Any, axes: Axes, points: list[Point]) -> list[Annotation]:
    """Place each label at the nearest position that is free of labels, markers and the legend."""
    clear = renderer.points_to_pixels(_CLEAR_PT)
    centres = [axes.transData.transform((point.x, point.miou_percent)) for point in points]
    legend = axes.get_legend()
    assert legend is not None
    taken = [legend.get_window_extent(renderer)]
    taken += [Bbox.from_extents(x - clear, y - clear, x + clear, y + clear) for x, y in centres]
    corners = [tuple(axes.transData.transform((p.x, p.miou_percent))) for p in pareto_front(points)]
    for (x0, y0), (x1, y1) in pairwise(corners):  # the front's steps
        taken += [Bbox.from_extents(x0, y0, x1, y0 + 1), Bbox.from_extents(x1, y0, x1 + 1, y1)]
    inside = axes.get_window_extent(renderer)
    placed: list[Annotation] = []
    for point in sorted(points, key=lambda point: -len(point.label)):
        for distance, angle in product(_DISTANCES_PT, _ANGLES):
            label = _annotate(axes, point, distance, angle)
            box = text_box(label, renderer)
            within = inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0 and box.y1 < inside.y1
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                placed.append(label)
                break
            label.remove()
        else:
            raise ValueError(f"plot: no free place for the label {point.label!r}; draw fewer models")
    return placed


def text_box(label: Annotation, renderer: Any) -> Bbox:
    """The bounding box of a label's text without its line, padded by one pixel."""
    label.update_positions(renderer)
    return Text.get_window_extent(label, renderer).padded(1)


def _annotate(axes: Axes, point: Point, distance: float, angle: float) -> Annotation:
    x, y = distance * cos(angle), distance * sin(angle)
    align: Any = "left" if x > 1 else "right" if x < -1 else "center"
    vertical: Any = "bottom" if y > 1 else "top" if y < -1 else "center"
    colour = _PUBLISHED if point.published else _MEASURED
    line: Any = dict(arrowstyle="-", color=colour, linewidth=0.5) if distance > _DISTANCES_PT[1] else None
    return axes.annotate(
        point.label,
        (point.x, point.miou_percent),
        (x, y),
        textcoords="offset points",
        ha=align,
        va=vertical,
        fontsize=7.5,
        color=colour,
        arrowprops=line,
        zorder=4,
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg. The same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
            with staged_file(path.with_name(path.name + suffix)) as staging:
                figure.savefig(staging, metadata=metadata)
