"""Settings of Sphinx for `make docs`: MyST pages, Furo's theme, an API reference from the docstrings."""

import re
from importlib import metadata
from typing import Any

from sphinx.application import Sphinx

project = "mobileclip-dense"
release = metadata.version("mobileclip-dense")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
html_show_copyright = False
default_role = "literal"  # docstrings write `names` in single backticks
smartquotes = False  # --flag is no dash

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # several classes have a field `class_names`

_ATTRIBUTES = ("attribute", "property")
_attributes: dict[str, list[str]] = {}
_SECTIONS = ("Args:", "Attributes:", "Raises:")
_NEXT_ITEM = re.compile(r"(?<=\.) (?=(?:[a-z]\w*|[A-Z]\w*(?:Error|Extra))(?:, \w+)*: )")


def _to_restructuredtext(_app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `names` in backticks, Google's sections, and indented examples.

    A line of a section may hold several items: `height: pixels. width: pixels.`
    """
    paragraphs = re.split(r"\n\n+", "\n".join(lines).strip("\n"))
    lines[:] = [line for text in paragraphs for line in [*_convert(text), ""]]
    if what in _ATTRIBUTES:
        _attributes[name] = lines[:]


def _restore_attribute(_app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Napoleon takes the words before a colon in the first line of an attribute for its type; undo that."""
    if what in _ATTRIBUTES:
        lines[:] = _attributes.pop(name)


def _convert(paragraph: str) -> list[str]:
    lines = paragraph.split("\n")
    if lines[0].startswith("    "):
        return ["::", "", *lines]
    if lines[0] == "Returns:":
        return [lines[0], *(_escape(line) for line in paragraph.replace(": ", " - ").split("\n")[1:])]  # no type either
    if lines[0] not in _SECTIONS:
        return [_escape(line) for line in lines]
    items = re.sub(r"\n {8,}", " ", paragraph).split("\n")[1:]  # a wrapped item becomes one line
    return [lines[0], *("    " + _escape(item.strip()) for line in items for item in _NEXT_ITEM.split(line))]


def _escape(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _unlink_other_pages(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Pages beside docs/ are not part of the site: keep the words of a link to one, without the link."""
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\.md\)", r"\1", source[0])


def setup(app: Sphinx) -> None:
    """Convert docstrings before Napoleon (priority 500) reads their sections, and repair attributes after it."""
    app.connect("source-read", _unlink_other_pages)
    app.connect("autodoc-process-docstring", _to_restructuredtext, priority=400)
    app.connect("autodoc-process-docstring", _restore_attribute, priority=600)
