"""The HTML page of `analyze captions`."""

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mobileclip_dense.analysis.caption_charts import draw_charts, set_colour
from mobileclip_dense.analysis.caption_rules import RULES
from mobileclip_dense.analysis.parts_of_speech import PARTS
from mobileclip_dense.data.captioned.resize import Pixels
from mobileclip_dense.pages.html_page import render_image, render_page, render_table

_THUMBNAIL_PX = 320
_SHOWN_SYNTHETIC = 2
_STYLE = """
.soft { opacity: .75; font-size: .9rem; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; list-style: none; }
.key span { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
td, th { vertical-align: bottom; }
td:first-child, th:first-child { position: sticky; left: 0; background: Canvas; min-width: 9.5rem; }
td:not(:first-child) { white-space: nowrap; }
thead th { max-width: 13rem; min-width: 5.5rem; overflow-wrap: break-word; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 1.5rem; }
.charts svg { width: 100%; height: auto; max-width: 520px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 160px), 1fr)); gap: 1rem; }
.pictures figure { border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.pictures img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #8881; display: block; }
.pictures figcaption { padding: .4rem .6rem .6rem; line-height: 1.35; opacity: 1; }
.pictures p { margin: .3rem 0 0; } .pictures b { font-weight: 600; }
.pictures .score { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; opacity: .75; }
.pictures .synthetic { border-left: 3px solid var(--line); padding-left: .5rem; }
@media (max-width: 480px) { .pictures { grid-template-columns: 1fr 1fr; gap: .6rem; } td, th { padding: .3rem .4rem; }
  table { font-size: .8rem; } td:first-child, th:first-child { min-width: 6rem; }
  thead th { min-width: 3.5rem; max-width: 7rem; } }
ul.examples { margin: .2rem 0; padding-left: 1.2rem; font-size: .9rem; }
"""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the contact sheet.

    Attributes:
        image: uint8 [H,W,3].
        percentile: share of the source's samples with less similar original captions, in percent. None without a model.
        captions: the original captions, then the synthetic ones.
        num_original: number of original captions.
        similarities: similarity of each caption. None without a model.
    """

    image: Pixels
    percentile: float | None
    captions: list[str]
    num_original: int
    similarities: list[float] | None


def captions_page(
    sets: list[dict[str, Any]], pictures: dict[str, list[Picture]], bad: dict[str, dict[str, int]], clip: str | None
) -> str:
    """The HTML page.

    Args:
        sets: see `describe_sets`.
        pictures: pictures of each source.
        bad: numbers of unusable samples of each source, by kind of problem.
        clip: the model of the similarities, None without one.
    """
    names = "".join(
        f"<li><span style='background:{set_colour(i)}'></span>{html.escape(one['name'])}</li>"
        for i, one in enumerate(sets)
    )
    model = (f"Similarities are cosines of image and caption under <b>{html.escape(clip)}</b>." if clip else
             "No model was given (--clip), so there are no similarities.")  # fmt: skip
    charts = "".join(f"<figure>{svg}</figure>" for svg in draw_charts(sets))
    parts = [
        "<h1>Captions</h1>",
        f"<p>Statistics of the captions of {len(pictures)} source{'s' * (len(pictures) > 1)}. {model}</p>",
        f"<ul class='key'>{names}</ul><div class='charts'>{charts}</div>",
        "<h2>Figures</h2>",
        render_table(["", *(one["name"] for one in sets)], _rows(sets)),
        _notes(sets, bad),
        *_sheets(pictures),
        "<h2>Captions that break the rules</h2>",
        "<p class='soft'>The first examples of each rule. File name: the caption contains a file name or is a number "
        "given by a camera. URL: it contains an address. Boilerplate: it contains a phrase of shops or galleries. "
        "Names nothing: no noun remains after removing those and words like photo.</p>",
        *_examples(sets),
    ]
    return render_page("Captions", parts, _STYLE + _header_colours(len(sets)))


def _header_colours(num_sets: int) -> str:
    """CSS that marks the column of each set with the colour of its curves."""
    return "\n".join(
        f"thead th:nth-child({i + 2})::before {{ content: '■ '; color: {set_colour(i)}; }}" for i in range(num_sets)
    )


def _rows(sets: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of a label and a cell for each set. A row with only a label is the heading of a group."""

    def share(value: float) -> str:
        return f"{100 * value:.1f} %"

    def spread(lengths: dict[str, Any]) -> str:
        return f"{lengths['percentiles']['5']:.0f} to {lengths['percentiles']['95']:.0f}"

    size = sets[0]["vocabulary"]["sample_size"]
    rows: list[list[str]] = [
        ["samples", *(f"{one['num_samples']:,}" for one in sets)],
        ["captions", *(f"{one['num_captions']:,}" for one in sets)],
        ["Length"],
        ["words, mean", *(f"{one['words']['mean']:.1f}" for one in sets)],
        ["words, 5 to 95 %", *(spread(one["words"]) for one in sets)],
        ["CLIP tokens, mean", *(f"{one['clip_tokens']['mean']:.1f}" for one in sets)],
        ["longer than CLIP's context", *(share(one["clip_tokens"]["share_cut"]) for one in sets)],
        ["Vocabulary"],
        ["distinct words", *(f"{one['vocabulary']['num_distinct']:,}" for one in sets)],
        [
            f"distinct share of {size:,} words",
            *("-" if (ratio := one["vocabulary"]["type_token_ratio"]) is None else f"{ratio:.3f}" for one in sets),
        ],
        ["Duplicates"],
        ["exact", *(share(one["duplicates"]["exact"]) for one in sets)],
        ["except case, numbers, punctuation", *(share(one["duplicates"]["near"]) for one in sets)],
        ["Noise"],
        *([rule, *(share(one["rules"][rule]["share"]) for one in sets)] for rule in (*RULES, "any")),
        ["Words per caption"],
        *([part, *(f"{one['parts_of_speech']['per_caption'][part]:.2f}" for one in sets)] for part in PARTS),
    ]
    if any(one["similarity"] for one in sets):
        rows += [
            ["Similarity to the image"],
            ["mean", *(f"{one['similarity']['mean']:.3f}" for one in sets)],
            ["5th percentile", *(f"{one['similarity']['percentiles']['5']:.3f}" for one in sets)],
            ["95th percentile", *(f"{one['similarity']['percentiles']['95']:.3f}" for one in sets)],
        ]
    return rows


def _notes(sets: list[dict[str, Any]], bad: dict[str, dict[str, int]]) -> str:
    lines = [
        "Distinct share: expected share of distinct words in a random sample of the same size from each set "
        "(rarefaction), so that small and large sets are comparable. Duplicates: captions equal to an earlier one.",
        *(
            f"{html.escape(name)}: left out {sum(kinds.values()):,} bad samples ("
            + ", ".join(f"{html.escape(kind)}: {count:,}" for kind, count in kinds.items())
            + ")."
            for name, kinds in bad.items()
            if kinds
        ),
    ]
    return "".join(f"<p class='soft'>{line}</p>" for line in lines)


def _sheets(pictures: dict[str, list[Picture]]) -> list[str]:
    if not any(pictures.values()):
        return []
    parts = ["<h2>Images and their captions</h2>"]
    if any(picture.percentile is not None for sheet in pictures.values() for picture in sheet):
        parts.append(
            "<p class='soft'>The pictures are evenly spaced by rank of similarity between image and original caption, "
            "least similar first. A bar marks synthetic captions.</p>"
        )
    for name, sheet in pictures.items():
        parts.append(f"<h3>{html.escape(name)}</h3><div class='pictures'>{''.join(map(_figure, sheet))}</div>")
    return parts


def _figure(picture: Picture) -> str:
    scores: Sequence[float | None] = picture.similarities or [None] * len(picture.captions)
    lines = []
    for number, (caption, score) in enumerate(zip(picture.captions, scores, strict=True)):
        if number >= picture.num_original + _SHOWN_SYNTHETIC:
            break
        kind = "original" if number < picture.num_original else "synthetic"
        value = f" <span class='soft'>{score:.2f}</span>" if score is not None and kind == "synthetic" else ""
        lines.append(f"<p class='{kind}'>{html.escape(caption)}{value}</p>")
    head = ""
    if picture.percentile is not None and picture.similarities is not None:
        mean = sum(picture.similarities[: picture.num_original]) / picture.num_original
        head = f"<div class='score'><span>{mean:.3f}</span><span>rank {picture.percentile:.0f} %</span></div>"
    image = render_image(_thumbnail(picture.image), alt="")
    return f"<figure>{image}<figcaption>{head}{''.join(lines)}</figcaption></figure>"


def _thumbnail(image: Pixels) -> bytes:
    """A small JPEG."""
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _examples(sets: list[dict[str, Any]]) -> list[str]:
    parts = []
    for one in sets:
        found = [(rule, one["rules"][rule]) for rule in RULES if one["rules"][rule]["examples"]]
        lines = "".join(
            f"<li><b>{rule}</b> ({figures['share']:.0%}): "
            + "; ".join(f"“{html.escape(text[:120])}”" for text in figures["examples"])
            + "</li>"
            for rule, figures in found
        )
        frequent = "; ".join(
            f"“{html.escape(text[:120])}” ({count:,})" for text, count in one["duplicates"]["most_common"]
        )
        lines += f"<li><b>most frequent captions</b>: {frequent}</li>" if frequent else ""
        parts.append(
            f"<h3>{html.escape(one['name'])}</h3>" + (f"<ul class='examples'>{lines}</ul>" if lines else "<p>None.</p>")
        )
    return parts
