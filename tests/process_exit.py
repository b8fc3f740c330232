"""`python -m tests.process_exit ARGUMENTS`: the command line, with exit status 3 where threads of gloo outlive it.

Such a thread aborts the process now and then, too seldom for a test; /proc, which lists threads, is Linux's.
"""

import atexit
import os
from contextlib import suppress
from pathlib import Path


def fail_with_threads_of_gloo() -> None:
    for thread in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # ended since it was listed
            if "gloo" in thread.read_text():
                os._exit(3)


atexit.register(fail_with_threads_of_gloo)

if __name__ == "__main__":
    from mobileclip_dense.__main__ import main

    main()
