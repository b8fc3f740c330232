"""Atomic writing of files, JSON, hashes, and the cache folder."""

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
    """Check that a file may be written.

    Args:
        path: the file.
        force: whether an existing file may be replaced.
        inputs: files that the command reads. They are never replaced.

    Raises:
        FileExistsError: `path` exists and `force` is off, or it is a folder or one of the inputs.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise FileExistsError(f"{path}: found a folder, expected a file name; choose another name")
    if any(source.exists() and path.samefile(source) for source in inputs):
        raise FileExistsError(f"{path}: is an input of the command and is not replaced; choose another name")
    if not force:
        raise FileExistsError(f"{path}: already exists; choose another name, or pass --force to replace it")


def figures_beside(out: Path, force: bool) -> Path:
    """The path for the figures of a page or picture: the same name with the suffix .json.

    Raises:
        FileExistsError: one of the two files exists and `force` is off.
        ValueError: `out` itself has the suffix .json.
    """
    figures = out.with_suffix(".json")
    if figures == out:
        raise ValueError(f"--out: found {out}, expected another suffix than .json, which is used for the figures")
    refuse_existing(out, force)
    refuse_existing(figures, force)
    return figures


@contextmanager
def naming_full_disk(path: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Context in which `path` is written. Errors of a full disk name the path and the free space.

    Python's message, "[Errno 28] No space left on device", has neither.

    Args:
        path: the file or folder.
        num_bytes: number of bytes to write, if known.

    Raises:
        OSError: the disk or a quota is full, or the file is larger than the system allows.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        needed = "" if num_bytes is None else f", {num_bytes / 1e6:,.1f} MB needed"
        raise OSError(f"{path}: cannot be written: {os.strerror(error.errno or 0)} "
                      f"({shutil.disk_usage(existing).free / 1e6:,.1f} MB free{needed}); free some space, or write to "
                      "another disk") from None  # fmt: skip


@contextmanager
def staged_file(path: Path, num_bytes: int | None = None) -> Iterator[Path]:
    """A temporary path next to `path`. It replaces `path` if the block succeeds, and is deleted if it fails.

    Args:
        path: the file to write.
        num_bytes: number of bytes to write, if known, for the error of a full disk.
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
    """Write JSON to a temporary file and rename it: UTF-8, indent of two spaces, keys in the given order.

    Surrogates, from file names in another encoding, are escaped and restored by `read_json`.
    """
    with staged_file(path) as staging:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        staging.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or not an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the folder is incomplete or of another kind")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found a JSON {type(value).__name__}, expected an object")
    return value


def cache_folder() -> Path:
    """The cache folder: $XDG_CACHE_HOME/mobileclip-dense, by default in ~/.cache.

    It may not be writable; callers must handle that. Without a home folder, the folder for temporary files is used.
    """
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "mobileclip-dense"
    try:
        return Path.home() / ".cache" / "mobileclip-dense"
    except RuntimeError:  # the user has no entry in the user database, as in some containers
        return Path(tempfile.gettempdir()) / "mobileclip-dense"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
