"""Help texts that are read from a registry when they are shown."""

from collections.abc import Callable

from typing_extensions import Doc


class RegistryDoc(Doc):
    """`Annotated[str, RegistryDoc(describe)]`: documentation of a setting (PEP 727), later registrations included.

    Args:
        describe: gives the text.
    """

    def __init__(self, describe: Callable[[], str]):
        self._describe = describe

    @property
    def documentation(self) -> str:  # type: ignore[override]
        """The text, as the registry stands now."""
        return self._describe()
