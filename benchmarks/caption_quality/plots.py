"""Plots of `benchmarks.caption_quality`, as inline SVG."""

import html
import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.caption_quality.claims import short_factor
from benchmarks.caption_quality.plan import BETTER, TUNINGS, WORSE
from benchmarks.caption_quality.statistics import Efficiency, pairs_needed
from mobileclip_dense.pages.html_page import render_image
from mobileclip_dense.report.records import HEADLINE

TUNING_NAMES = {"finetune": "fine-tuned", "probe": "linear probe"}
_COLOURS = {"finetune": "#1f6fb4", "probe": "#d8722c", WORSE: "#8a8f98", BETTER: "#1f6fb4"}


def render_plot(draw: Any, result: dict[str, Any], task: str, caption: str) -> str:
    """An HTML figure for one task, drawn by `draw`, one of the functions below."""
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    draw(axes, result, task)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    image = render_image(buffer.getvalue(), caption)
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def draw_arms(axes: Axes, result: dict[str, Any], task: str) -> None:
    """Draw the figures of all seeds, and the mean and standard error of each arm."""
    arms = list(result["arms"][TUNINGS[0]])
    for tuning, shift in zip(TUNINGS, (-0.14, 0.14), strict=True):
        for row, arm in enumerate(arms):
            summary, colour = result["arms"][tuning][arm][task], _COLOURS[tuning]
            axes.plot(summary["values"], [row + shift] * len(summary["values"]), "o", color=colour, alpha=0.35, ms=4)
            axes.errorbar(
                summary["mean"],
                row + shift,
                xerr=summary["standard_error"],
                fmt="|",
                color=colour,
                ms=11,
                capsize=3,
                label=TUNING_NAMES[tuning] if row == 0 else None,
            )
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set(xlabel=f"{HEADLINE[task][1]}, {HEADLINE[task][2]}", title=task)


def draw_gains(axes: Axes, result: dict[str, Any], task: str) -> None:
    """Draw the relative gains of the comparisons with their 95 % intervals."""
    names = list(result["comparisons"][TUNINGS[0]])
    for tuning, shift in zip(TUNINGS, (-0.14, 0.14), strict=True):
        for row, name in enumerate(names):
            c = result["comparisons"][tuning][name][task]
            gain, low, high = (100 * value / c["reference"] for value in (c["gain"], *c["welch"]))
            axes.errorbar(
                gain,
                row + shift,
                xerr=[[gain - low], [high - gain]],
                fmt="o",
                color=_COLOURS[tuning],
                ms=4,
                capsize=3,
                label=TUNING_NAMES[tuning] if row == 0 else None,
            )
    axes.axvline(0, color="black", linewidth=1)
    axes.axvspan(0, 5, color="black", alpha=0.06)
    axes.set_yticks(range(len(names)), [name.replace(" against ", "\nagainst ") for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="gain, %", title=task)


def draw_scaling(axes: Axes, result: dict[str, Any], task: str) -> None:
    """Draw the figures against the number of pretraining pairs."""
    pairs = result["num_pairs"]
    for quality in (WORSE, BETTER):
        of_size = result["scaling"][quality][task]
        means, errors = [s["mean"] for s in of_size], [s["standard_error"] for s in of_size]
        axes.errorbar(pairs, means, yerr=errors, fmt="o-", color=_COLOURS[quality], capsize=3, label=quality)
    target = result["scaling"][WORSE][task][-1]["mean"]
    curve = {n: s["mean"] for n, s in zip(pairs, result["scaling"][BETTER][task], strict=True)}
    needed = pairs_needed(curve, target, larger_is_better=HEADLINE[task][3])
    axes.axhline(target, color=_COLOURS[WORSE], linestyle=":", linewidth=1)
    if needed <= pairs[-1]:
        axes.axvline(needed, color=_COLOURS[BETTER], linestyle=":", linewidth=1)
    factor = short_factor(Efficiency(**result["data_efficiency"][task]))
    axes.set_xscale("log")
    axes.set_xticks(pairs, [str(number) for number in pairs])
    axes.minorticks_off()
    axes.set(xlabel="pretraining pairs", ylabel=f"{HEADLINE[task][1]}, {HEADLINE[task][2]}", title=f"{task}: {factor}")
