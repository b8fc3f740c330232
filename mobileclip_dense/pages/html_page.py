"""Self-contained HTML pages: styles and images are inline, so that a page is a single file.

A page is `render_page(title, parts)`. A part is a piece of HTML: a heading, a table from `render_table(header, rows)`,
an image from `render_image(data, alt)`. These functions escape their text; callers escape other text with
`html.escape`.

    page = render_page("Runs", ["<h1>Runs</h1>", render_table(["run", "mIoU"], [["nano", "41.2"]])])
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --line: #8884; font: 16px/1.5 system-ui, sans-serif; }
* { box-sizing: border-box; }
body { background: Canvas; color: CanvasText; max-width: 1180px; margin: 1.5rem auto 4rem; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1 { margin: 0 0 .5rem; line-height: 1.2; } h2 { margin: 2.5rem 0 .5rem; } h3 { margin: 1.5rem 0 .5rem; }
.scroll { overflow: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
td, th { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: right; vertical-align: top; }
td:first-child, th:first-child { text-align: left; }
tr.group th { padding-top: 1rem; }
img { max-width: 100%; } figure { margin: 0; } figcaption { font-size: .85rem; opacity: .8; }
"""
_MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg"}


def render_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Render an HTML document.

    Args:
        title: title of the window. A heading must be one of the parts.
        parts: pieces of HTML, in order.
        style: CSS of this page, added to the common style of body, headings, tables, images and figures (light and
            dark).
    """
    head = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style>"
    )
    return "\n".join([head, *parts, "</html>\n"])


def render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table of plain text, which scrolls if it is wider than the page. A row with one cell is a heading."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join(_row(row, len(header)) for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"


def _row(row: Sequence[str], num_columns: int) -> str:
    if len(row) == 1 < num_columns:
        return f"<tr class='group'><th colspan='{num_columns}'>{escape(row[0])}</th></tr>"
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"


def render_image(data: bytes, alt: str) -> str:
    """Render an inline image.

    Args:
        data: contents of a PNG, JPEG or SVG file.
        alt: alternative text.
    """
    media_type = next((kind for magic, kind in _MEDIA_TYPES.items() if data.startswith(magic)), "image/svg+xml")
    return f"<img alt='{escape(alt)}' src='data:{media_type};base64,{base64.b64encode(data).decode()}'>"
