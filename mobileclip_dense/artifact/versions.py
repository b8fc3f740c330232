"""Versions of the libraries that a figure or a file depends on."""

import platform
from importlib.metadata import version


def versions_of(*libraries: str) -> dict[str, str]:
    """Versions of installed distributions, and of Python, by name.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    return {name: version(name) for name in libraries} | {"python": platform.python_version()}
