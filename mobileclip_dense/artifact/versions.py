"""Versions of libraries, for records."""

import platform
from importlib.metadata import version


def versions_of(*libraries: str) -> dict[str, str]:
    """The versions of installed distributions and of Python, by name.

    Raises:
        importlib.metadata.PackageNotFoundError: a distribution is not installed.
    """
    return {name: version(name) for name in libraries} | {"python": platform.python_version()}
