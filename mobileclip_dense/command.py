"""How a command meets its user: flags from a dataclass, one clear line when something is wrong."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

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
    import tyro  # a fifth of a second, which `mobileclip-dense --help` does without

    run_command(lambda: action(tyro.cli(settings, prog=prog)))
