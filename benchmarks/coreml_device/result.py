"""Result files of Core ML artifacts: one for each device and choice of compute units."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.artifact import Artifact, load_artifact
from mobileclip_dense.runtime.latency_result import latency_result


def load_coreml(folder: Path) -> Artifact:
    """Load a Core ML artifact. Raises ValueError for an artifact of another runtime; see also `load_artifact`."""
    artifact = load_artifact(folder)
    if artifact.runtime != "coreml":
        raise ValueError(
            f"{folder}: runtime: found {artifact.runtime}, expected coreml; `python -m latency` measures ONNX"
        )
    return artifact


def result_path(out: Path, name: str, device: str) -> Path:
    """The path of the result of an artifact on a device. `name` comes from `result_names`."""
    return out / f"{name}@{_slug(device)}.json"


def coreml_result(
    artifact: Artifact,
    digest: str,
    samples_ms: Sequence[float],
    *,
    device: str,
    system: str,
    runtime: str,
    num_warmup: int,
) -> dict[str, Any]:
    """The `latency_result` of Core ML, recorded as one thread, because Core ML chooses its threads itself."""
    return latency_result(
        artifact,
        digest,
        {1: samples_ms},
        runtime=runtime,
        num_warmup=num_warmup,
        libraries=("coremltools",),
        device=_slug(device),
        system=system,
    )


def _slug(name: str) -> str:
    """The name of a device for file names."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"
