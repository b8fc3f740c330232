"""Latency results of artifacts, in the schema of `artifact/result.py`."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.result import RESULT_SCHEMA_VERSION, check_result
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.timing import summarize


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
    """The result of an artifact, of the schema in `artifact/result.py`.

    Args:
        digest: the artifact's `artifact_sha256`. times_ms_by_threads: milliseconds of each run.
        runtime: library and execution provider. device, system: None: this machine. peak_memory_mb: None: not known.
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
    """Check a result against its schema, write it, and print its name with a summary.

    Raises:
        ValueError: the result does not match the schema.
    """
    check_result(result, path)
    write_json(path, result)
    print(f"{path}: {summary}")
