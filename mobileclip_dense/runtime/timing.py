"""Timing of models and other actions, one beside the other."""

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
    """Milliseconds of `num_runs` runs of each action, after `num_warmup` that are not counted.

    The actions run in turn, round after round, so that a slow moment of the machine hits all.

    Args:
        clock_ns: nanoseconds; `time.process_time_ns` counts CPU time. progress: title of a progress bar.
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
    """Percentiles, mean and number of runs."""
    p50, p90, p99 = (float(np.percentile(times_ms, q)) for q in (50, 90, 99))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(np.mean(times_ms)), "num_runs": len(times_ms)}
