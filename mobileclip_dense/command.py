"""How every command of the project meets its user: flags from a dataclass, one clear line when something is wrong."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

Settings = TypeVar("Settings")


def run_command(action: Callable[[], object]) -> None:
    """Run `action`; a user's mistake ends in one line on stderr and exit status 1, not in a traceback.

    ValueError and OSError are taken as the user's (see the contract of every public function here); set
    MOBILECLIP_DENSE_TRACEBACK=1 to see where they came from. Anything else is a bug and keeps its traceback.
    """
    try:
        action()
    except (ValueError, OSError) as error:
        if os.environ.get("MOBILECLIP_DENSE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def run_with_settings(settings: type[Settings], action: Callable[[Settings], object], prog: str) -> None:
    """Parse the command line into `settings`, a dataclass whose field docstrings become the help, and run `action`."""
    run_command(lambda: action(tyro.cli(settings, prog=prog)))
