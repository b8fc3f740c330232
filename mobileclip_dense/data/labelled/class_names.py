"""Class name files: a list of names, or a table with columns for index and name."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.artifact.text import read_lines

_INDEX_COLUMNS = ("idx", "index", "id", "class_id", "label", "value")
_NAME_COLUMNS = ("name", "class_name", "class", "label_name")


class ClassNames(NamedTuple):
    """Class names in the order of their indices. `first_index` is 0 or 1; None if the file has no indices."""

    names: tuple[str, ...]
    first_index: int | None


def read_class_names(path: Path) -> ClassNames:
    """Read class names from a list (one per line, in the order of the indices) or from a table with a header.

    A file is a table if it is a .csv or .tsv, or contains tabs. The index column is called idx, index, id, class_id,
    label or value, the name column name, class_name, class or label_name, in any case and order. Of several synonyms
    (`building;edifice`), the first is used. Indices that start at 1 follow ADE20K: 0 is "other" and ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another form, the indices have gaps, or there are too many classes for 8 bits.
    """
    lines = read_lines(path, "class names")
    if not lines:
        raise ValueError(f"{path}: class names: found none, expected one name per line")
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            raise ValueError(
                f"{path}: line {number}: found {line[:40]!r}, expected one name per line; save the file "
                "as plain text with line feeds"
            )
    is_table = path.suffix.lower() in (".csv", ".tsv") or "\t" in lines[0]
    found = _read_table(path, lines) if is_table else ClassNames(_read_list(path, lines), None)
    if len(found.names) > IGNORE_INDEX:
        raise ValueError(
            f"{path}: class names: found {len(found.names)}, expected at most {IGNORE_INDEX}, "
            f"the limit of 8-bit masks (index {IGNORE_INDEX} is ignored)"
        )
    return found


def _read_list(path: Path, lines: list[str]) -> tuple[str, ...]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise ValueError(f"{path}: line {number}: found no name, expected a name for every index from 0")
    return tuple(line.strip() for line in lines)


def _read_table(path: Path, lines: list[str]) -> ClassNames:
    delimiter = "\t" if "\t" in lines[0] else "," if "," in lines[0] else ";"
    try:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error as error:
        raise ValueError(f"{path}: class names: not a table ({error})") from None
    index_column = _column(path, header, _INDEX_COLUMNS)
    name_column = _column(path, header, _NAME_COLUMNS)
    names: dict[int, str] = {}
    for row in rows:
        try:
            index, name = int(row[index_column]), re.split(r"[;,]" if delimiter == "\t" else ";", row[name_column])[0]
        except (IndexError, ValueError):
            raise ValueError(
                f"{path}: class names: found the row {row}, expected an index in column {header[index_column]} and a "
                f"name in column {header[name_column]}"
            ) from None
        if index in names or not name:
            raise ValueError(f"{path}: class {index}: found {'twice' if index in names else 'without a name'}")
        names[index] = name
    if not names:
        raise ValueError(f"{path}: class names: found a header without rows")
    first = min(names)
    gaps = sorted(set(range(min(first, 1), max(names) + 1)) - set(names))
    if first < 0 or gaps:
        missing = ", ".join(map(str, gaps[:5]))
        raise ValueError(
            f"{path}: classes: found indices from {first} to {max(names)}{' without ' + missing if missing else ''}, "
            "expected all from 0, or all from 1 (0 is then ignored)"
        )
    return ClassNames(tuple(names[index] for index in sorted(names)), first)


def _column(path: Path, header: list[str], known: tuple[str, ...]) -> int:
    lowered = [name.lower() for name in header]
    for name in known:
        if name in lowered:
            return lowered.index(name)
    raise ValueError(f"{path}: header: found {', '.join(header)}, expected a column {' or '.join(known)}")
