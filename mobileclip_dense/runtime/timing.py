"""Timing of several models or other actions in turn."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from mobileclip_dense.pages.progress import progress_bar

NUM_WARMUP = 5


def time_in_turn(
    actions: Sequence[Callable[[], object]],
    num_runs: int,
    *,
    num_warmup: int = NUM_WARMUP,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    progress: str | None = None,
) -> list[list[float]]:
    """Measure the milliseconds of `num_runs` runs of each action, after `num_warmup` runs that are not counted.

    The actions run in turn, one run each per round, so that a slow moment of the machine affects all of them.

    Args:
        actions: functions to time.
        num_runs: number of measured runs of each action.
        num_warmup: number of runs of each action before.
        clock_ns: clock in nanoseconds; `time.process_time_ns` measures CPU time.
        progress: title of a progress bar. None: no progress bar.
    """
    times_ms: list[list[float]] = [[] for _ in actions]
    for index in progress_bar(range(num_warmup + num_runs), progress, unit="round", shown=progress is not None):
        for action, measured in zip(actions, times_ms, strict=True):
            begin = clock_ns()
            action()
            if index >= num_warmup:
                measured.append((clock_ns() - begin) / 1e6)
    return times_ms


def summarize(times_ms: list[float]) -> dict[str, float]:
    """Percentiles 50, 90 and 99, mean, and number of runs."""
    p50, p90, p99 = (float(np.percentile(times_ms, q)) for q in (50, 90, 99))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(np.mean(times_ms)), "num_runs": len(times_ms)}
