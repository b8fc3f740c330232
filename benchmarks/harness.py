"""Shared parts of the benchmarks: settings and provenance of result files. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.runtime.device import device_name


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
