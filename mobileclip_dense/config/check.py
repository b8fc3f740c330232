"""How a setting out of range is refused."""

import math
import os
from typing import Any

MAX_COUNT = 2**31 - 1
"""Largest number that a setting may have where nothing smaller is named; 32-bit counters hold it."""
MAX_SEED = 2**32 - 1
"""Largest seed that NumPy takes."""
MAX_PARALLEL = max(256, os.cpu_count() or 1)
"""Most threads or worker processes that a setting may ask for; thousands of them stall or crash a machine."""
MAX_SIDE_PX = 8192
"""Largest height or width of a model's input, pixels."""


def require(config: Any, field: str, holds: bool, expected: str) -> None:
    """Raises ValueError, naming the flag, what was found and what was expected, where `holds` is false."""
    if not holds:
        flag = "--" + field.replace("_", "-")
        found = getattr(config, field)
        found = " ".join(map(str, found)) if isinstance(found, tuple) else found
        raise ValueError(f"{flag}: found {found}, expected {expected}")


def require_numbers(
    config: Any,
    *fields: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse fields of a config that are not finite numbers in the range given.

    A field that is None passes; of a tuple every item is checked. Not-a-number passes every comparison that is
    written as a refusal, so no range may be checked without this function. `at_most` is MAX_COUNT where neither it
    nor `below` is given, and `at_least` is -MAX_COUNT where neither it nor `above` is given.

    Raises:
        ValueError: names the flag, what was found and what was expected.
    """
    upper = MAX_COUNT if at_most is None and below is None else at_most
    lower = -MAX_COUNT if at_least is None and above is None else at_least
    bounds = {"at least": lower, "above": above, "at most": upper, "below": below}
    expected = ", ".join(f"{name} {bound}" for name, bound in bounds.items() if bound is not None)

    def fits(value: object) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (lower is None or value >= lower)
            and (above is None or value > above)
            and (upper is None or value <= upper)
            and (below is None or value < below)
        )

    for field in fields:
        value = getattr(config, field)
        items = value if isinstance(value, tuple) else () if value is None else (value,)
        require(config, field, all(fits(item) for item in items), f"a number {expected}")
