"""Range checks of settings."""

import operator
import os
from collections.abc import Callable
from typing import Any

MAX_COUNT = 2**31 - 1
"""Default upper limit of a setting. It fits 32-bit counters, and a seed stays valid for NumPy (below 2**32) when the
indices of process and worker are added to it."""
MAX_PARALLEL = max(256, os.cpu_count() or 1)
"""Maximum number of threads or worker processes. Thousands of them stall or crash a machine."""
MAX_SIDE_PX = 8192
"""Maximum height or width of a model's input, in pixels."""


def require(config: Any, field: str, holds: bool, expected: str) -> None:
    """Raises ValueError if `holds` is false. The message names the flag, the value found and the value expected."""
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
    """Check that fields of a config are finite numbers in a range.

    None passes. Every item of a tuple is checked. The comparisons are written so that nan fails them all; a check such
    as `value <= 0` would let nan pass. Without `at_most` and `below` the upper limit is MAX_COUNT; without `at_least`
    and `above` the lower limit is -MAX_COUNT.

    Raises:
        ValueError: a field is out of range. The message names the flag, the value found and the limits it violates.
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
            violated = [
                f"{name} {limit}" for name, limit, holds in limits if limit is not None and not holds(item, limit)
            ]
            require(config, field, not violated, ", ".join(violated))
