"""The charts of `analyze captions` as inline SVG, with the text colour and the width of the page."""

import io
import re
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mobileclip_dense.analysis.caption_rules import RULES
from mobileclip_dense.analysis.parts_of_speech import PARTS

_INK = "#123456"  # placeholder for the page's text colour, which differs between light and dark mode
_STYLE: Any = {
    "font.size": 10,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), _INK
    ),
    "grid.color": _INK,
}


def set_colour(number: int) -> str:
    """The colour of a set, `#rrggbb`."""
    return str(to_hex(f"C{number % 10}"))


def _line(number: int) -> dict[str, Any]:
    """The style of a set's curve. Later curves are thinner, so that equal curves stay visible."""
    return {"color": set_colour(number), "linewidth": max(1.2, 3.0 - 0.6 * number)}


def draw_charts(sets: list[dict[str, Any]]) -> list[str]:
    """SVGs of lengths, vocabulary, parts of speech and noise, and of similarity if all sets have one."""
    drawers = [_draw_words, _draw_tokens, _draw_growth, _draw_parts, _draw_noise]
    if all(one["similarity"] for one in sets):
        drawers.insert(0, _draw_similarity)
    svgs = []
    for drawer in drawers:
        # Ids inside an SVG are global to the page; the salt makes those of the charts distinct.
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": drawer.__name__}):
            figure = Figure(figsize=(4.4, 3.1), layout="constrained")
            drawer(figure.subplots(), sets)
            svgs.append(_inline(figure))
    return svgs


def _inline(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )


def _draw_lengths(axes: Axes, sets: list[dict[str, Any]], field: str) -> None:
    longest = max(len(one[field]["histogram"]) for one in sets)
    for number, one in enumerate(sets):
        shares = [100 * count / one["num_captions"] for count in one[field]["histogram"]]
        shares += [0.0] * (longest - len(shares))
        axes.step(range(longest), shares, where="mid", **_line(number))
    axes.set(ylabel="% of captions", ylim=(0, None), xlim=(0, longest))
    axes.grid(alpha=0.2)


def _draw_words(axes: Axes, sets: list[dict[str, Any]]) -> None:
    _draw_lengths(axes, sets, "words")
    axes.set(title="Length", xlabel="words")


def _draw_tokens(axes: Axes, sets: list[dict[str, Any]]) -> None:
    _draw_lengths(axes, sets, "clip_tokens")
    axes.set(title="Length in CLIP tokens", xlabel="tokens with start and end (CLIP's context: 77)")


def _draw_growth(axes: Axes, sets: list[dict[str, Any]]) -> None:
    for number, one in enumerate(sets):
        points = one["vocabulary"]["growth"]
        axes.plot([x for x, _ in points], [y for _, y in points], **_line(number))
    axes.set(title="Vocabulary", xlabel="words read", ylabel="distinct words")
    if any(one["vocabulary"]["growth"] for one in sets):  # captions of only emoji have no words
        axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.2)


def _draw_similarity(axes: Axes, sets: list[dict[str, Any]]) -> None:
    for number, one in enumerate(sets):
        edges, counts = one["similarity"]["histogram"]["edges"], one["similarity"]["histogram"]["counts"]
        total = sum(counts)
        densities = [
            count / total / max(right - left, 1e-9)
            for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True)
        ]
        axes.stairs(densities, edges, **_line(number))
        axes.axvline(one["similarity"]["mean"], color=set_colour(number), linewidth=1, linestyle=":")
    axes.set(title="Similarity of image and caption", xlabel="cosine (dotted: mean)", ylabel="density", ylim=(0, None))
    axes.grid(alpha=0.2)


def _draw_grouped(axes: Axes, sets: list[dict[str, Any]], labels: list[str], shares: list[list[float]]) -> None:
    """Draw horizontal bars in percent, from the top: a group for each label, with a bar for each set."""
    height = 0.8 / len(sets)
    for number, of_set in enumerate(shares):
        places = [place - 0.4 + (number + 0.5) * height for place in range(len(labels))]
        axes.barh(places, [100 * share for share in of_set], height=height, color=set_colour(number))
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.2)
    axes.set_axisbelow(True)


def _draw_parts(axes: Axes, sets: list[dict[str, Any]]) -> None:
    labels = [part for part in PARTS if any(one["parts_of_speech"]["share"][part] >= 0.005 for one in sets)]
    _draw_grouped(axes, sets, labels, [[one["parts_of_speech"]["share"][part] for part in labels] for one in sets])
    axes.set(title="Parts of speech", xlabel="% of words")


def _draw_noise(axes: Axes, sets: list[dict[str, Any]]) -> None:
    labels = [*RULES, "duplicate", "near duplicate"]
    shares = [
        [*(one["rules"][rule]["share"] for rule in RULES), one["duplicates"]["exact"], one["duplicates"]["near"]]
        for one in sets
    ]
    _draw_grouped(axes, sets, labels, shares)
    axes.set(title="Noise", xlabel="% of captions", xlim=(0, 100))
