"""How a setting out of range is refused."""

import operator
import os
from collections.abc import Callable
from typing import Any

MAX_COUNT = 2**31 - 1
"""Largest number that a setting may have where nothing smaller is named. 32-bit counters hold it, and a seed of NumPy
(below 2**32) still does when the numbers of process and worker are added."""
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

    A field that is None passes; of a tuple every item is checked. Not a number (nan) fails every comparison here,
    whereas `value <= 0` lets it through. The range ends at MAX_COUNT where neither `at_most` nor `below` is given, and
    begins at -MAX_COUNT where neither `at_least` nor `above` is.

    Raises:
        ValueError: names the flag, what was found and the limits that it misses.
    """
    if at_most is None and below is None:
        at_most = MAX_COUNT
    if at_least is None and above is None:
        at_least = -MAX_COUNT
    limits: list[tuple[str, float | None, Callable[[Any, Any], bool]]] = [
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    ]
    for field in fields:
        value = getattr(config, field)
        for item in value if isinstance(value, tuple) else () if value is None else (value,):
            is_number = isinstance(item, int | float) and not isinstance(item, bool)
            require(config, field, is_number, "numbers" if isinstance(value, tuple) else "a number")
            missed = [
                f"{name} {limit}" for name, limit, holds in limits if limit is not None and not holds(item, limit)
            ]
            require(config, field, not missed, ", ".join(missed))
