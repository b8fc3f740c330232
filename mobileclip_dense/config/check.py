"""How a setting out of range is refused."""

from typing import Any


def require(config: Any, field: str, holds: bool, expected: str) -> None:
    """Raises ValueError, naming the flag, what was found and what was expected, where `holds` is false."""
    if not holds:
        flag = "--" + field.replace("_", "-")
        raise ValueError(f"{flag}: found {getattr(config, field)}, expected {expected}")
