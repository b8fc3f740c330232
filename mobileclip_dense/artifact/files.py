"""Writing so that a reader never meets a half-written file or folder; and where to keep what is not a result."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refuse_existing(path: Path, force: bool, *inputs: Path) -> None:
    """See that a file may be written.

    Args:
        inputs: files that the command reads, which are never replaced.

    Raises:
        FileExistsError: `path` exists and `force` is off, it is a folder, or it is one of the inputs.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise FileExistsError(f"{path}: found a folder, expected the name of a file to write; choose another name")
    if any(source.exists() and path.samefile(source) for source in inputs):
        raise FileExistsError(f"{path}: is what the command reads, and is not replaced; choose another name")
    if not force:
        raise FileExistsError(f"{path}: already exists; choose another name, or pass --force to replace it")


def figures_beside(out: Path, force: bool) -> Path:
    """Where the figures of a page or picture go: beside it, as JSON of the same name.

    Raises:
        FileExistsError: either exists and `force` is off. ValueError: `out` is the JSON file itself.
    """
    figures = out.with_suffix(".json")
    if figures == out:
        raise ValueError(f"--out: found {out}, expected another suffix than .json, which its figures get")
    refuse_existing(out, force)
    refuse_existing(figures, force)
    return figures


@contextmanager
def naming_full_disk(path: Path, num_bytes: int | None = None) -> Iterator[None]:
    """The block in which `path` is written: a full disk is reported with its name and how much is free.

    Python's own message, "[Errno 28] No space left on device", has neither.

    Args:
        num_bytes: how much is written, if known.

    Raises:
        OSError: the disk or a quota is full, or the file is larger than the system allows.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        needed = "" if num_bytes is None else f", {num_bytes / 1e6:,.1f} MB needed"
        raise OSError(f"{path}: cannot be written: {os.strerror(error.errno or 0)} "
                      f"({shutil.disk_usage(there).free / 1e6:,.1f} MB free{needed}); free some space, or write to "
                      "another disk") from None  # fmt: skip


@contextmanager
def staged_file(path: Path, num_bytes: int | None = None) -> Iterator[Path]:
    """A temporary name beside `path` that replaces it when the block ends well and vanishes when it does not.

    Args:
        num_bytes: how much is written, if known: said where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        with naming_full_disk(path, num_bytes):
            yield staging
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside and rename; UTF-8, two-space indent, keys in the order given.

    What UTF-8 cannot say, which is in names of files of another encoding, is escaped, and read back as it was.
    """
    with staged_file(path) as staging:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        staging.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: no such file. ValueError: not JSON, or not an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the folder is not complete or not what was expected")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found a JSON {type(value).__name__}, expected an object")
    return value


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/mobileclip-dense, by default in ~/.cache.

    It may be impossible to write there, which must stop nobody. A user without a home folder gets one for
    temporary files.
    """
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "mobileclip-dense"
    try:
        return Path.home() / ".cache" / "mobileclip-dense"
    except RuntimeError:  # a container's user that no list of users knows
        return Path(tempfile.gettempdir()) / "mobileclip-dense"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
