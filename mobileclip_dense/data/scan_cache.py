"""A cache of the results of checking files, valid until a file changes."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mobileclip_dense.artifact.files import cache_folder, read_json, write_json
from mobileclip_dense.pages.progress import progress_bar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Stamp = list[Any]


def stamp_of(*paths: Path) -> Stamp | None:
    """Absolute paths, sizes and modification times of files; None if a file is missing or its name is invalid."""
    try:
        found = [path.stat() for path in paths]
    except (OSError, ValueError):
        return None
    return [str(path.absolute()) for path in paths] + [n for stat in found for n in (stat.st_size, stat.st_mtime_ns)]


def scan_with_cache(
    items: Sequence[Item], scan: Callable[[Item], Answer], *, stamps: Sequence[Stamp | None],
    from_json: Callable[[Any], Answer | None], is_good: Callable[[Answer], bool], cache_key: str, progress: str,
) -> list[Answer]:  # fmt: skip
    """The results of `scan(item)`, in order. Items with an unchanged stamp are read from the cache.

    Results with problems are not cached: the stamp does not show a mounted disk or a changed permission.

    Args:
        items: the items to scan.
        scan: returns a JSON value; called in threads.
        stamps: for each item the values that its result depends on, beginning with a unique name; None: not cached.
        from_json: parses a cached result; None if it is damaged.
        is_good: whether a result has no problems and is cached.
        cache_key: everything else that the results depend on. Its hash is the file name in `cache_folder`.
        progress: label of the progress bar.
    """
    name = hashlib.sha256(cache_key.encode(errors="surrogateescape")).hexdigest()[:32]
    path = cache_folder() / "scans" / f"{name}.json"
    cached = _read(path)
    known = [_known(cached, stamp, from_json) for stamp in stamps]
    new = [item for item, answer in zip(items, known, strict=True) if answer is None]
    if new:
        with ThreadPoolExecutor() as pool:
            fresh = iter(list(progress_bar(pool.map(scan, new), progress, unit="image", total=len(new))))
        known = [next(fresh) if answer is None else answer for answer in known]
        for stamp, answer in zip(stamps, known, strict=True):
            if stamp is not None and answer is not None and is_good(answer):
                cached[stamp[0]] = [stamp, answer]
        _write(path, cached)
    return [answer for answer in known if answer is not None]


def _known(cached: dict[str, Any], stamp: Stamp | None, from_json: Callable[[Any], Answer | None]) -> Answer | None:
    entry = None if stamp is None else cached.get(stamp[0])
    return from_json(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp else None


def _read(path: Path) -> dict[str, Any]:
    """The cached results; empty if the file is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def _write(path: Path, cached: dict[str, Any]) -> None:
    try:
        write_json(path, cached)
    except OSError as error:
        print(f"{path}: cannot write the cache of the data scan; the next start scans again ({error})", file=sys.stderr)
