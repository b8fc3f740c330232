"""Result files of Core ML artifacts: one for each device and choice of compute units."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.artifact import Artifact, load_artifact
from mobileclip_dense.runtime.latency_result import latency_result


def load_coreml(folder: Path) -> Artifact:
    """Raises ValueError if the artifact is not a Core ML one, and as `load_artifact`."""
    artifact = load_artifact(folder)
    if artifact.runtime != "coreml":
        raise ValueError(
            f"{folder}: runtime: found {artifact.runtime}, expected coreml; `python -m latency` measures ONNX"
        )
    return artifact


def result_path(out: Path, name: str, device: str) -> Path:
    """Path of the result of an artifact on a device; `name` is that of `result_names`."""
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
    """`latency_result` of Core ML, which chooses its threads itself, so that they count as one."""
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
    """A device's name as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"
