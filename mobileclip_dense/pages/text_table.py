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
    width = shutil.get_terminal_size().columns
    print("\n".join(_wrap_cell(title, width)))
    print(format_table(header, rows, width))


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], max_width: int = 80) -> str:
    """Format a table as lines of at most `max_width` characters, with an underlined header.

    A row of one cell, in a table of several columns, is the heading of the indented rows below it. Columns of
    numbers, except the first column, are right-aligned. Cells of the widest columns are wrapped between words until the
    table fits. If it still does not fit, long words are shortened to their two ends with … between.
    """
    is_heading = [len(row) == 1 < len(header) for row in rows]
    indent = _GAP if any(is_heading) else ""
    body = [[indent + row[0], *row[1:]] for row, heading in zip(rows, is_heading, strict=True) if not heading]
    table = [list(header), *body]
    widths = _fit([[row[index] for row in table] for index in range(len(header))], max_width)
    to_right = [
        index > 0 and len(body) > 0 and all(row[index][:1] in _NUMBER_STARTS for row in body)
        for index in range(len(header))
    ]
    lines = [*_wrap(table[0], widths, to_right), _GAP.join("-" * width for width in widths)]
    indented = iter(body)
    for row, heading in zip(rows, is_heading, strict=True):
        lines += _wrap_cell(row[0], max_width) if heading else _wrap(next(indented), widths, to_right)
    return "\n".join(line.rstrip() for line in lines)


def _fit(columns: list[list[str]], max_width: int) -> list[int]:
    """Widths of the columns. The widest column that can still wrap is narrowed by one character at a time."""
    widths = [max(map(len, column)) for column in columns]
    narrowest = [max((_longest_word(cell) for cell in column), default=0) for column in columns]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > max_width:
        wide = [index for index, width in enumerate(widths) if width > narrowest[index]]
        if not wide:  # words have to be shortened
            wide = [index for index, width in enumerate(widths) if width > 1]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _longest_word(cell: str) -> int:
    """Length of the longest word, with the indentation of the cell."""
    return len(cell) - len(cell.lstrip()) + max(map(len, cell.split()), default=0)


def _wrap(row: list[str], widths: list[int], to_right: list[bool]) -> list[str]:
    """The lines of a row."""
    cells = [_wrap_cell(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    lines = zip(*(cell + [""] * (height - len(cell)) for cell in cells), strict=True)
    return [
        _GAP.join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, to_right, strict=True)
        )
        for line in lines
    ]


def _wrap_cell(cell: str, width: int) -> list[str]:
    """The lines of a cell, each at most `width` characters; the indentation of the first is that of all."""
    if len(cell) <= width:
        return [cell]
    indent = cell[: len(cell) - len(cell.lstrip())][: width - 1]
    words = " ".join(_shorten(word, width - len(indent)) for word in cell.split())
    return textwrap.wrap(words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _shorten(word: str, width: int) -> str:
    if len(word) <= width:
        return word
    num_end = width // 2
    return f"{word[: width - num_end - 1]}…{word[len(word) - num_end :]}"
