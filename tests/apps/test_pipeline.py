"""Reading and writing beside the model: in order, bounded, and with failures where they belong."""

import threading
import time
from collections.abc import Iterator

import pytest

from mobileclip_dense.apps.pipeline import overlap


def test_outcomes_come_in_order_whatever_their_stages_take() -> None:
    def slow(value: int) -> int:
        time.sleep(0.01 if value % 3 == 0 else 0)
        return value * 10

    outcomes = list(
        overlap(range(20), slow, lambda read: read + 1, lambda read, answer: (read, answer), num_threads=4,
                num_waiting=6)
    )  # fmt: skip
    assert [outcome.item for outcome in outcomes] == list(range(20))
    assert [outcome.written for outcome in outcomes] == [(value * 10, value * 10 + 1) for value in range(20)]
    assert all(min(outcome.times_ms) >= 0 for outcome in outcomes)


def test_reading_and_writing_overlap_with_the_model() -> None:
    """The model waits until the next item is being read and the last being written: without overlap, for ever."""
    reading, writing = threading.Event(), threading.Event()

    def read(item: int) -> int:
        if item == 1:
            reading.set()
        return item

    def model(item: int) -> int:
        assert (reading if item == 0 else writing).wait(10)
        return item

    outcomes = overlap(range(2), read, model, lambda item, _: item == 1 or writing.set(), num_threads=1, num_waiting=2)
    assert len(list(outcomes)) == 2


@pytest.mark.parametrize("num_waiting", [1, 3])
def test_no_more_items_are_alive_than_the_queues_may_hold(num_waiting: int) -> None:
    """With a model that is slower than reading, and a writer that is slower than the model."""
    lock, alive, most = threading.Lock(), 0, 0

    class Image:
        def __init__(self) -> None:
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    def write(*_: object) -> None:
        time.sleep(0.003)

    outcomes = overlap(
        range(40), lambda _: Image(), lambda _: time.sleep(0.001), write, num_threads=2, num_waiting=num_waiting
    )
    assert sum(1 for _ in outcomes) == 40
    assert most <= 2 * num_waiting + 1


@pytest.mark.parametrize("stage", ["read", "model", "write"])
@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("decoder"), MemoryError(), KeyError("key")])
def test_an_item_fails_alone_whatever_is_raised_in_whichever_stage(stage: str, error: Exception) -> None:
    def fail(name: str, item: int) -> int:
        if name == stage and item == 2:
            raise error
        return item

    outcomes = list(
        overlap(range(5), lambda item: fail("read", item), lambda item: fail("model", item),
                lambda item, _: fail("write", item), num_threads=2, num_waiting=2)
    )  # fmt: skip
    assert [outcome.written for outcome in outcomes] == [0, 1, None, 3, 4]
    assert [outcome.error for outcome in outcomes] == [None, None, error, None, None]


def test_control_c_ends_all_items() -> None:
    def model(item: int) -> int:
        if item == 1:
            raise KeyboardInterrupt
        return item

    outcomes = overlap(range(9), lambda item: item, model, lambda item, _: item, num_threads=1, num_waiting=1)
    with pytest.raises(KeyboardInterrupt):
        list(outcomes)


def test_none_ends_a_stream_and_closing_ends_the_reading() -> None:
    def endless() -> Iterator[int]:
        value = 0
        while True:
            asked.append(value)
            yield value
            value += 1

    asked: list[int] = []
    ended = overlap(endless(), lambda item: item if item < 5 else None, lambda item: item, lambda item, _: item,
                    num_threads=1, num_waiting=2)  # fmt: skip
    assert [outcome.written for outcome in ended] == [0, 1, 2, 3, 4]
    asked.clear()
    closed = overlap(endless(), lambda item: item, lambda item: item, lambda item, _: item, num_threads=2,
                     num_waiting=3)  # fmt: skip
    next(closed)
    closed.close()
    assert len(asked) <= 7
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read_", "write_"))]
