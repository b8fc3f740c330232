"""What was found out about files by opening them, kept between starts for as long as the files stay as they are."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from mobileclip_dense.artifact.files import cache_folder, read_json, write_json

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Stamp = list[Any]


def stamp_of(*paths: Path) -> Stamp | None:
    """Absolute paths, sizes and times of change; None where a file is missing or has a name that no file can have."""
    try:
        found = [path.stat() for path in paths]
    except (OSError, ValueError):
        return None
    return [str(path.absolute()) for path in paths] + [n for stat in found for n in (stat.st_size, stat.st_mtime_ns)]


def look_once(
    items: Sequence[Item], look: Callable[[Item], Answer], *, stamps: Sequence[Stamp | None],
    recall: Callable[[Any], Answer | None], is_good: Callable[[Answer], bool], question: str, progress: str,
) -> list[Answer]:  # fmt: skip
    """`look(item)` of each item, in order, or what it was at an earlier start if the item has the same stamp still.

    What is wrong with a file is not kept: a share that was away, or a permission, leaves no trace in the stamp.

    Args:
        look: gives what JSON can hold; called in threads.
        stamps: for each item what its answer depends on, a name first; None: to be looked at every time.
        recall: an answer from JSON, None where it is none. is_good: whether nothing is wrong, so that it is kept.
        question: what the answers depend on besides; they are kept in a file of `cache_folder` named by its hash.
        progress: the progress bar's label.
    """
    name = hashlib.sha256(question.encode(errors="surrogateescape")).hexdigest()[:32]
    path = cache_folder() / "scans" / f"{name}.json"
    kept = _read(path)
    known = [_known(kept, stamp, recall) for stamp in stamps]
    new = [item for item, answer in zip(items, known, strict=True) if answer is None]
    if new:
        with ThreadPoolExecutor() as pool:
            fresh = iter(list(tqdm(pool.map(look, new), total=len(new), unit="image", desc=progress)))
        known = [next(fresh) if answer is None else answer for answer in known]
        for stamp, answer in zip(stamps, known, strict=True):
            if stamp is not None and answer is not None and is_good(answer):
                kept[stamp[0]] = [stamp, answer]
        _write(path, kept)
    return [answer for answer in known if answer is not None]


def _known(kept: dict[str, Any], stamp: Stamp | None, recall: Callable[[Any], Answer | None]) -> Answer | None:
    entry = None if stamp is None else kept.get(stamp[0])
    return recall(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp else None


def _read(path: Path) -> dict[str, Any]:
    """What an earlier start left; nothing where the file is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def _write(path: Path, kept: dict[str, Any]) -> None:
    try:
        write_json(path, kept)
    except OSError as error:
        print(f"{path}: the scan of the data is not kept, the next start repeats it ({error})", file=sys.stderr)
