"""`python -m benchmarks.mil_executor ARTIFACT...`: the run time of the MIL executor, and its error against PyTorch."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.harness import ResultSettings, provenance
from mobileclip_dense.artifact.artifact import artifact_sha256, load_artifact, load_artifacts, load_golden
from mobileclip_dense.artifact.files import refuse_existing, write_json
from mobileclip_dense.artifact.result import result_names
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import require
from mobileclip_dense.deploy.coreml.mil.predictor import load_program_predictor
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.runtime.device import device_name, peak_resident_mb
from mobileclip_dense.runtime.parity import compare_with_golden


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig(ResultSettings):
    """Run Core ML artifacts in the MIL executor on their golden images, and compare the outputs with PyTorch's."""

    artifacts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Core ML artifact folders."""
    out: Path = Path("results/mil-executor.json")

    def __post_init__(self) -> None:
        require(self, "artifacts", self.artifacts != (), "at least one artifact")


def measure_executor(config: ExecutorConfig) -> dict[str, Any]:
    """Write and return the result.

    Raises:
        FileNotFoundError, ValueError: an artifact is damaged.
        FileExistsError: the result exists and --force was not given.
    """
    refuse_existing(config.out, config.force)
    loaded = load_artifacts(config.artifacts)
    names = result_names({digest: artifact.name for digest, (_, artifact) in loaded.items()})
    figures = {names[digest]: _measure(folder) for digest, (folder, _) in progress_bar(loaded.items(), unit="artifact")}
    result = {
        **provenance(device_name(), "coremltools", "torch"),
        "artifacts": figures,
        "peak_memory_mb": round(peak_resident_mb()),
    }
    write_json(config.out, result)
    for name, measured in figures.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in measured.items() if key != "sha256"))
    return result


def _measure(folder: Path) -> dict[str, Any]:
    artifact, golden = load_artifact(folder), load_golden(folder)
    if artifact.runtime != "coreml":
        raise ValueError(f"{folder}: runtime: found {artifact.runtime}, expected coreml")
    begin = time.perf_counter()
    predictor = load_program_predictor(folder / artifact.model_file, artifact)
    loaded = time.perf_counter()
    found = compare_with_golden(folder, artifact, golden, predictor)
    seconds = (time.perf_counter() - loaded) / len(golden["input"])
    figures = {"sha256": artifact_sha256(folder), "load_s": loaded - begin, "run_s": seconds, **found}
    if artifact.task == "depth":
        truth = golden["depth_m"]
        depth_m = np.concatenate([predictor(item[None])["depth_m"] for item in golden["input"]])
        figures["abs_rel_percent"] = float(np.mean(np.abs(depth_m - truth) / np.maximum(truth, 1e-3)) * 100)
    return figures


if __name__ == "__main__":
    run_with_settings(ExecutorConfig, measure_executor, "python -m benchmarks.mil_executor")
