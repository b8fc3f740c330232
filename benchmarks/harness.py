"""Shared parts of the benchmarks: settings and provenance of result files, and fresh processes.

It does not import torch.
"""

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.result import RESULT_SCHEMA_VERSION, check_result
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.timing import summarize

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class ResultSettings:
    """Settings of a benchmark that writes one result file."""

    out: Path
    """Result file."""
    force: bool = False
    """Replace the result file if it exists."""


def compute_device_name() -> str:
    """The name of torch's GPU, or the name of the CPU (`device_name`) without a GPU."""
    import torch  # not needed by most benchmarks

    return torch.cuda.get_device_name() if torch.cuda.is_available() else device_name()


def provenance(device: str, *libraries: str) -> dict[str, Any]:
    """The fields `device` and `versions` of a result file."""
    return {"device": device, "versions": versions_of(*libraries)}


def save_result(path: Path, result: dict[str, Any], summary: str) -> dict[str, Any]:
    """Write a result file and print its name with a summary; returns `result`."""
    write_json(path, result)
    print(f"{path}: {summary}")
    return result


def latency_result(
    artifact: Artifact,
    digest: str,
    times_ms_by_threads: dict[int, Sequence[float]],
    *,
    runtime: str,
    num_warmup: int,
    libraries: Sequence[str],
    device: str | None = None,
    system: str | None = None,
    peak_memory_mb: float | None = None,
) -> dict[str, Any]:
    """The latency result of an artifact, in the schema of `artifact/result.py`.

    Args:
        artifact: the artifact record.
        digest: `artifact_sha256` of the artifact.
        times_ms_by_threads: milliseconds of each run, by number of threads.
        runtime: library and execution provider.
        num_warmup: number of runs before the measured ones.
        libraries: packages to record the versions of.
        device, system: None: those of this machine.
        peak_memory_mb: None: unknown.
    """
    return {
        "schema_version": RESULT_SCHEMA_VERSION,
        "artifact": artifact.name,
        "artifact_sha256": digest,
        "architecture": artifact.architecture,
        "device": device or device_name(),
        "system": system or platform.platform(),
        "runtime": runtime,
        "versions": versions_of(*libraries),
        "num_warmup": num_warmup,
        "peak_memory_mb": peak_memory_mb,
        "latency_ms_by_threads": {str(n): summarize(list(times)) for n, times in times_ms_by_threads.items()},
    }


def save_latency(path: Path, result: dict[str, Any], summary: str) -> None:
    """Validate a result of `latency_result` and save it with `save_result`.

    Raises:
        ValueError: the result does not fit its schema.
    """
    check_result(result, path)
    save_result(path, result, summary)


def run_in_fresh_process(
    action: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Value:
    """Call `action` in a new process, so that its peak memory can be measured. Returns the value of `action`.

    Raises:
        concurrent.futures.process.BrokenProcessPool: the process was killed, for example because it ran out of memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(action, *args, **kwargs).result()
