"""Settings of Sphinx for `make docs`: MyST pages, Furo's theme, an API reference from the docstrings."""

import re
from importlib import metadata
from typing import Any

from sphinx.application import Sphinx

project = "mobileclip-dense"
author = "the mobileclip-dense contributors"
release = metadata.version("mobileclip-dense")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"{project} {release}"
default_role = "literal"  # docstrings write `names` in single backticks

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"exclude-members": "MAY_CHANGE"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def _escape_markup(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `names` in backticks: other characters of reStructuredText stand for themselves."""
    for index, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
        lines[index] = "".join(parts)


def setup(app: Sphinx) -> None:
    """Register the escaping before Napoleon (priority 500) reads the sections."""
    app.connect("autodoc-process-docstring", _escape_markup, priority=400)
