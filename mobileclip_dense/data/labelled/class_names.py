"""Class name files: a list of names, or a table with a column of indices and one of names."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.artifact.text import read_lines

_INDEX_COLUMNS = ("idx", "index", "id", "class_id", "label", "value")
_NAME_COLUMNS = ("name", "class_name", "class", "label_name")


class ClassNames(NamedTuple):
    """Names in the order of their indices; `first_index` is 0 or 1, None where the file does not say."""

    names: tuple[str, ...]
    first_index: int | None


def read_class_names(path: Path) -> ClassNames:
    """Class names from a list, one per line in the order of the indices, or from a table with a header.

    A table is a .csv or .tsv, or has tabs. One of its columns is called idx, index, id, class_id, label or value, and
    one name, class_name, class or label_name, in any case and order. The first of several synonyms
    (`building;edifice`) is taken. Indices that begin at 1 follow ADE20K: 0 is "other" and ignored.

    Raises:
        FileNotFoundError: no such file. ValueError: not such a file; indices with gaps; more classes than 8 bits hold.
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
            f"which is what 8-bit masks hold beside {IGNORE_INDEX}, the ignored"
        )
    return found


def _read_list(path: Path, lines: list[str]) -> tuple[str, ...]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise ValueError(f"{path}: line {number}: found no name; every index from 0 needs one, without gaps")
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
                f"{path}: class names: found the row {row}, expected an index and a name in "
                f"{header[index_column]} and {header[name_column]}"
            ) from None
        if index in names or not name:
            raise ValueError(f"{path}: class {index}: found {'twice' if index in names else 'without a name'}")
        names[index] = name
    if not names:
        raise ValueError(f"{path}: class names: found a header and no row below it")
    first = min(names)
    gaps = sorted(set(range(min(first, 1), max(names) + 1)) - set(names))
    if first < 0 or gaps:
        missing = ", ".join(map(str, gaps[:5]))
        raise ValueError(
            f"{path}: classes: found indices from {first} to {max(names)} without {missing or 'sense'}, "
            "expected all from 0, or all from 1 where 0 is ignored"
        )
    return ClassNames(tuple(names[index] for index in sorted(names)), first)


def _column(path: Path, header: list[str], known: tuple[str, ...]) -> int:
    lowered = [name.lower() for name in header]
    for name in known:
        if name in lowered:
            return lowered.index(name)
    raise ValueError(f"{path}: header: found {', '.join(header)}, expected a column {' or '.join(known)}")
