"""Pieces of Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns of numbers are aligned to the right, except the first."""
    body = [list(row) for row in rows]
    ruler = ["---:" if index and _is_numeric([row[index] for row in body]) else "---" for index in range(len(header))]
    return "\n".join(_line(cells) for cells in (header, ruler, *body))


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(cell[:1].isdigit() or cell[:1] in "+-" for cell in cells)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def bullets(items: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {item}" for item in items)


def picture(name: str, alt: str) -> str:
    """An image of the folder of the page."""
    return f"![{alt}]({name})"


def milliseconds(latency: dict[str, float], places: int = 1) -> str:
    """Median and 90th percentile of a latency."""
    return f"{latency['p50']:.{places}f} / {latency['p90']:.{places}f}"


def listed(words: Sequence[str]) -> str:
    """Words with commas and an "and"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
