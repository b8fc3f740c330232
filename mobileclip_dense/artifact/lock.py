"""Locks that allow only one process at a time to write to a folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Context in which only this process writes to `folder`. The lock is released when the process ends.

    It is a POSIX record lock. Forked processes, such as data-loading workers, do not inherit it; they may outlive a
    killed parent for seconds.

    Raises:
        FileExistsError: another process holds the lock. The message contains its process ID.
    """
    if sys.platform == "win32":  # has no POSIX locks
        yield
        return
    import fcntl

    path = folder / LOCK_NAME
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            file.seek(0)
            raise FileExistsError(f"{folder}: is being written by process {file.read().strip() or 'unknown'}; wait "
                                  "until it has ended, or choose another --out") from None  # fmt: skip
        except OSError as error:  # some network file systems do not support locks
            print(f"{path}: not locked ({error}); do not run another command that writes the folder", file=sys.stderr)
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise FileExistsError(f"{folder}: was written by another process until now; run the command again")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
