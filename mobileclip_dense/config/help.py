"""Help texts that are generated from a registry."""

from collections.abc import Callable

from typing_extensions import Doc


class RegistryDoc(Doc):
    """Documentation of a setting (PEP 727) that is generated when it is read: `Annotated[str, RegistryDoc(describe)]`.

    It includes encoders and heads that were registered after the import.

    Args:
        describe: returns the text.
    """

    def __init__(self, describe: Callable[[], str]):
        self._describe = describe

    @property
    def documentation(self) -> str:  # type: ignore[override]
        """The text for the current state of the registry."""
        return self._describe()
