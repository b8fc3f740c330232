"""Tables for the terminal.

    print_table("runs", ["run", "mIoU"], [["nano", "41.2"], ["mci0", "44.0"]])

prints

    runs
    run   mIoU
    ----  ----
    nano  41.2
    mci0  44.0
"""

import shutil
import textwrap
from collections.abc import Sequence

_GAP = "  "
_NUMBER_STARTS = "0123456789+-."


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title and a table at the width of the terminal (80 without a terminal)."""
    print(title)
    print(format_table(header, rows, shutil.get_terminal_size().columns))


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], max_width: int = 80) -> str:
    """Format a table as lines of text, with an underlined header.

    Columns of numbers, except the first column, are right-aligned. Cells of the widest columns are wrapped between
    words until the table fits `max_width` characters. Words are not broken, so a table with long words may be wider.
    """
    table = [list(header), *map(list, rows)]
    widths = _fit([[row[index] for row in table] for index in range(len(header))], max_width)
    to_right = [
        index > 0 and len(rows) > 0 and all(row[index][:1] in _NUMBER_STARTS for row in rows)
        for index in range(len(header))
    ]
    head, *body = [_wrap(row, widths, to_right) for row in table]
    lines = [*head, _GAP.join("-" * width for width in widths), *(line for row in body for line in row)]
    return "\n".join(line.rstrip() for line in lines)


def _fit(columns: list[list[str]], max_width: int) -> list[int]:
    """Widths of the columns. The widest column that can still wrap is narrowed by one character at a time."""
    widths = [max(map(len, column)) for column in columns]
    narrowest = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > max_width:
        wide = [index for index, width in enumerate(widths) if width > narrowest[index]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _wrap(row: list[str], widths: list[int], to_right: list[bool]) -> list[str]:
    """The lines of a row."""
    cells = [
        textwrap.wrap(cell, max(width, 1), break_long_words=False, break_on_hyphens=False)
        if len(cell) > width
        else [cell]
        for cell, width in zip(row, widths, strict=True)
    ]
    height = max(map(len, cells))
    lines = zip(*(cell + [""] * (height - len(cell)) for cell in cells), strict=True)
    return [
        _GAP.join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, to_right, strict=True)
        )
        for line in lines
    ]
