"""One process at a time writes into a folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """The block in which this process alone writes into `folder`. The lock goes with the process, however it ends.

    It is POSIX's record lock, which processes that are forked meanwhile, such as loader workers, do not share: they may
    outlive a killed parent for seconds.

    Raises:
        FileExistsError: another process holds it; the message has its number.
    """
    if sys.platform == "win32":  # without such locks
        yield
        return
    import fcntl

    path = folder / LOCK_NAME
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            file.seek(0)
            raise FileExistsError(f"{folder}: is being written by process {file.read().strip() or 'unknown'}; wait "
                                  "until it has ended, or choose another --out") from None  # fmt: skip
        except OSError as error:  # some network file systems have no locks
            print(f"{path}: not locked ({error}); let no other command write the folder", file=sys.stderr)
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise FileExistsError(f"{folder}: was being written by another process until now; repeat the command")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
