"""The HTML page of an evaluation: figures, classes and pictures."""

from html import escape
from pathlib import Path
from typing import Any

from mobileclip_dense.dense.evaluation.measure import Measured, Row
from mobileclip_dense.pages.html_page import render_image, render_page, render_table

_STYLE = """
body { max-width: 1440px; }
.scroll { max-height: 32rem; width: fit-content; }
img { display: block; margin: .8rem 0; background: white; }
"""


def evaluation_page(record: dict[str, Any], measured: Measured, classes: list[Row]) -> str:
    """The HTML page of an evaluation.

    Args:
        record: the contents of evaluation.json.
        measured: figures, images and pictures.
        classes: the rows of the classes, in display order.
    """
    name = Path(record["run"]).name
    settings = [(key, value) for key, value in record["settings"].items() if value is not None]
    about = [(key, record[key]) for key in ("run", "weights_sha256", "data", "num_images", "device")]
    parts = [
        f"<h1>{escape(name)}: {escape(record['task'])}</h1>",
        _pairs("figure", list(measured.figures.items())),
        "<h2>How it was measured</h2>",
        _pairs("setting", settings + about),
        *(["<h2>Classes, the worst first</h2>", _rows(classes)] if classes else []),
        "<h2>Pictures, the worst images first</h2>",
        *(render_image(png, file) for file, png in measured.pictures.items()),
        "<h2>All images</h2>",
        _rows(measured.images),
    ]
    return render_page(f"{name}: evaluation", parts, _STYLE)


def _pairs(header: str, pairs: list[tuple[str, Any]]) -> str:
    return render_table([header, ""], [[key, _text(value)] for key, value in pairs])


def _rows(rows: list[Row]) -> str:
    return render_table(list(rows[0]), [[_text(cell) for cell in row.values()] for row in rows])


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
