"""Timing of models, one beside the other."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

NUM_WARMUP = 5

Timed = tuple[Callable[[npt.NDArray[Any]], object], npt.NDArray[Any]]  # a model and its input


def time_in_turn(models: Sequence[Timed], num_runs: int, progress: str | None = None) -> list[list[float]]:
    """Milliseconds of `num_runs` runs of each model on its input, after NUM_WARMUP.

    The models run in turn, round after round, so that a slow moment of the machine hits all.
    """
    times_ms: list[list[float]] = [[] for _ in models]
    for index in tqdm(range(NUM_WARMUP + num_runs), unit="round", desc=progress, disable=progress is None):
        for (model, taken), kept in zip(models, times_ms, strict=True):
            begin = time.perf_counter_ns()
            model(taken)
            if index >= NUM_WARMUP:
                kept.append((time.perf_counter_ns() - begin) / 1e6)
    return times_ms


def summarize(times_ms: list[float]) -> dict[str, float]:
    """Percentiles, mean and number of runs."""
    p50, p90, p99 = (float(np.percentile(times_ms, q)) for q in (50, 90, 99))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(np.mean(times_ms)), "num_runs": len(times_ms)}
