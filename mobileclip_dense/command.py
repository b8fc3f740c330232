"""How a command meets its user: flags from a dataclass, one clear line when something is wrong."""

import inspect
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from mobileclip_dense.extras import MissingExtra

Settings = TypeVar("Settings")


def run_command(action: Callable[[], object]) -> None:
    """Run `action`; a user's mistake ends in one line on stderr and exit status 1, not in a traceback.

    ValueError, OSError and MissingExtra count as the user's mistakes; every public function documents when it raises
    them. Any other exception is a bug and keeps its traceback. Set MOBILECLIP_DENSE_TRACEBACK=1 to see all tracebacks.
    """
    try:
        action()
    except (ValueError, OSError, MissingExtra) as error:
        if os.environ.get("MOBILECLIP_DENSE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def run_with_settings(settings: type[Settings], action: Callable[[Settings], object], prog: str) -> None:
    """Parse the command line into `settings`, a dataclass whose field docstrings become the help, and run `action`."""
    run_command(lambda: action(load_tyro().cli(settings, prog=prog)))


@cache
def load_tyro() -> Any:
    """tyro, which takes a fifth of a second to import, so that `mobileclip-dense --help` does without it.

    tyro 1.0 joins the lines of a field's docstring before it removes their indentation, and so keeps line breaks in the
    middle of sentences. Here the indentation is removed first.
    """
    import tyro
    from tyro import _docstrings

    parse = _docstrings.parse_docstring_from_object
    _docstrings.parse_docstring_from_object = lambda cls: {  # type: ignore[assignment]
        name: inspect.cleandoc(text) for name, text in parse(cls).items()
    }
    return tyro
