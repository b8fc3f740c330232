"""Calls in a new process, whose peak memory can be measured by itself."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def run_in_fresh_process(
    action: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Value:
    """Call `action` in a new process, whose peak memory is then that of `action` alone; returns its value.

    Raises:
        concurrent.futures.process.BrokenProcessPool: the process was killed, as for want of memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(action, *args, **kwargs).result()
