"""A pipeline of three stages: threads read ahead, this thread runs the model, threads write. Order is kept."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Answer = TypeVar("Answer")
Written = TypeVar("Written")
Value = TypeVar("Value")
Times = tuple[float, float, float]  # milliseconds of reading, model, writing


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Item, Written]):
    """The result of one item: the value that writing returned, or the error of the stage that failed.

    `times_ms` is the time of each stage by itself, overlap not considered.
    """

    item: Item
    written: Written | None
    error: Exception | None
    times_ms: Times


def overlap(
    items: Iterable[Item],
    read: Callable[[Item], Read | None],
    model: Callable[[Read], Answer],
    write: Callable[[Read, Answer], Written],
    *,
    num_threads: int,
    num_waiting: int,
) -> Generator[Outcome[Item, Written], None, None]:
    """Read items ahead in threads, run the model in this thread, and write in threads. Outcomes keep the items' order.

    Args:
        read: returns None at the end of a stream.
        read, model, write: an Exception of one of them fails this item only; KeyboardInterrupt ends the pipeline.
        num_threads: threads for reading, and as many for writing; with 1, both stages run in order.
        num_waiting: most items that are read ahead, and most that wait to be written; it bounds the memory.
    """
    source = iter(items)
    reading: deque[tuple[Item, Future[tuple[Read | None, float]]]] = deque()
    writing: deque[tuple[Item, Future[Any], float, float]] = deque()
    readers, writers = (ThreadPoolExecutor(num_threads, thread_name_prefix=name) for name in ("read", "write"))
    try:
        while True:
            for item in islice(source, num_waiting - len(reading)):
                reading.append((item, readers.submit(_timed, read, item)))
            if not reading:
                break
            item, future = reading.popleft()
            if isinstance(future.exception(), Exception):
                writing.append((item, future, 0.0, 0.0))
            else:
                taken, read_ms = future.result()
                if taken is None:
                    break
                try:
                    answer, model_ms = _timed(model, taken)
                except Exception as error:
                    writing.append((item, _failed(error), read_ms, 0.0))
                else:
                    writing.append((item, writers.submit(_timed, write, taken, answer), read_ms, model_ms))
            while writing and (len(writing) >= num_waiting or writing[0][1].done()):
                yield _settle(*writing.popleft())
        while writing:
            yield _settle(*writing.popleft())
    finally:
        for pool in (readers, writers):
            pool.shutdown(cancel_futures=True)


def _timed(action: Callable[..., Value], *arguments: object) -> tuple[Value, float]:
    begin = time.perf_counter_ns()
    value = action(*arguments)
    return value, (time.perf_counter_ns() - begin) / 1e6


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _settle(item: Item, future: Future[Any], read_ms: float, model_ms: float) -> Outcome[Item, Any]:
    try:
        written, write_ms = future.result()
    except Exception as error:
        return Outcome(item=item, written=None, error=error, times_ms=(read_ms, model_ms, 0))
    return Outcome(item=item, written=written, error=None, times_ms=(read_ms, model_ms, write_ms))
