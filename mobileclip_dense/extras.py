"""Optional dependencies: a missing one is reported with the extra that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(ImportError):
    """A package of an extra is not installed."""


@contextmanager
def needing_extra(what: str, extra: str) -> Iterator[None]:
    """Import a package of an extra in this block.

    Args:
        what: command or function that needs it. extra: name of the extra in pyproject.toml.

    Raises:
        MissingExtra: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "mobileclip_dense":
            raise
        raise MissingExtra(
            f"{what}: needs the package {error.name}, which is not installed; run "
            f"`pip install 'mobileclip-dense[{extra}]'`"
        ) from error
