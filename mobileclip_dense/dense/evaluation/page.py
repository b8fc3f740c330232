"""One page that shows an evaluation: figures, classes, pictures. It holds all it needs and loads nothing."""

import base64
from html import escape
from pathlib import Path
from typing import Any

from mobileclip_dense.dense.evaluation.measure import Measured, Row

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 1440px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .9rem .15rem 0; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; display: block; margin: .8rem 0; background: white; }
.scroll { max-height: 32rem; overflow: auto; width: fit-content; max-width: 100%; }
"""


def page(record: dict[str, Any], measured: Measured, classes: list[Row]) -> str:
    """HTML of an evaluation.

    Args:
        record: the contents of evaluation.json. classes: the rows of the classes in the order in which to show them.
    """
    name = escape(Path(record["run"]).name)
    settings = [{"setting": key, "": _text(value)} for key, value in record["settings"].items() if value is not None]
    about = [{"": key, " ": _text(record[key])} for key in ("run", "weights_sha256", "data", "num_images", "device")]
    parts = [
        f"<h1>{name}: {escape(record['task'])}</h1>",
        _table([{"figure": key, "": _text(value)} for key, value in measured.figures.items()]),
        "<h2>How it was measured</h2>",
        _table(settings),
        _table(about),
        *(["<h2>Classes, the worst first</h2>", _table(classes)] if classes else []),
        "<h2>Pictures, the worst images first</h2>",
        *(_image(file, png) for file, png in measured.pictures.items()),
        "<h2>All images</h2>",
        _table(measured.images),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}: evaluation</title>'
        f"<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _table(rows: list[Row]) -> str:
    head = "".join(f"<th>{escape(str(name))}</th>" for name in rows[0])
    body = "\n".join("<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row.values()) for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _image(name: str, png: bytes) -> str:
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
