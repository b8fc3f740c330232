"""Progress of long loops: bars on a terminal, none of their control characters in a log file.

    for image in progress_bar(images, "scenes", unit="image"):
        ...

A bar is drawn on stderr if stderr is a terminal. Otherwise `progress_bar` writes nothing. `TrackedProgress` is for
loops that report figures; it writes plain lines instead of the bar.
"""

import sys
import time
from collections.abc import Iterable
from functools import partial
from types import ModuleType
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_LINE_EVERY_S = 600.0
_BAR = "{desc} {percentage:3.0f} %|{bar}|{postfix}, {remaining} left"


def progress_bar(
    items: Iterable[Item],
    title: str | None = None,
    *,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    shown: bool = True,
    leave: bool = True,
) -> Iterable[Item]:
    """Iterate over `items` with a progress bar on a terminal, and silently elsewhere.

    Args:
        title: text before the bar. unit: name of one item. total: number of items where `len(items)` is unknown.
        initial: number of items done before. shown: False for no bar. leave: keep the bar when the loop ends.
    """
    bar: Iterable[Item] = tqdm(
        items, title, total=total, initial=initial, unit=unit, leave=leave, disable=None if shown else True
    )  # None: disabled unless stderr is a terminal
    return bar


def hide_bars_in_logs(module: ModuleType, name: str = "tqdm") -> None:
    """Replace the tqdm that a module of another library has imported by one that draws on terminals only.

    Args:
        name: name of tqdm in that module.
    """
    if hasattr(module, name):
        setattr(module, name, partial(tqdm, disable=None))


def print_above_bar(text: str) -> None:
    """Print a line on stderr, above the bar if there is one."""
    tqdm.write(text, file=sys.stderr)


class TrackedProgress:
    """Progress with figures: a bar on a terminal; elsewhere a line on stderr every tenth of the way or ten minutes.

    A line reads `pretrain 30 %: step 90 of 300, loss 3.210`.

    Args:
        title: text before the bar or the figures. total: amount of work. initial: amount that was done before.
        shown: False for neither bar nor lines, as in all processes but the first.
    """

    def __init__(self, title: str, total: int, *, initial: int = 0, shown: bool = True):
        self._title, self._total, self._done = title, total, initial
        self._bar = tqdm(total=total, initial=initial, desc=title, bar_format=_BAR, disable=None if shown else True)
        self._has_lines = shown and self._bar.disable
        self._last_tenth, self._last_line_s = self._tenth(), time.monotonic()

    def begin(self) -> None:
        """Estimate the time left from here on, after a slow start."""
        self._bar.unpause()

    def advance(self, amount: int = 1) -> None:
        """Count work that is done."""
        self._done += amount
        self._bar.update(amount)

    def report(self, figures: str) -> None:
        """Show figures of the work that is done so far."""
        self._bar.set_postfix_str(figures, refresh=False)
        if not self._has_lines:
            return
        now = time.monotonic()
        if self._tenth() > self._last_tenth or now - self._last_line_s >= _LINE_EVERY_S:
            percent = 100 * self._done // max(self._total, 1)
            print(f"{self._title} {percent} %: {figures}", file=sys.stderr, flush=True)
            self._last_tenth, self._last_line_s = self._tenth(), now

    def close(self) -> None:
        """Keep the last state of the bar on the terminal."""
        self._bar.close()

    def _tenth(self) -> int:
        return 10 * self._done // max(self._total, 1)
