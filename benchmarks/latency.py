"""`python -m benchmarks.latency ARTIFACT...`: how long ONNX artifacts take on this machine, as result files."""

import platform
import re
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.runtimes import NUM_WARMUP, load_onnx_artifact, time_in_turn
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.contract.artifact import artifact_sha256, load_golden
from mobileclip_dense.contract.files import write_json
from mobileclip_dense.contract.result import CPU_RUNTIME, RESULT_SCHEMA_VERSION, check_result


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """Measure the latency and the peak memory of ONNX artifacts in ONNX Runtime on this machine's CPU."""

    artifacts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Artifact folders."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads to measure with."""
    runs: int = 100
    """Timed runs for each artifact and thread count, after 5 for warming up."""
    out: Path = Path("results")
    """Folder for the result files, ARTIFACT@DEVICE.json; a file of the same name is replaced only with --force."""
    force: bool = False
    """Replace result files that exist."""


def measure_latency(config: LatencyConfig) -> list[Path]:
    """Write one result file per artifact; their paths.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`; a number is out of range. FileExistsError: a result exists.
    """
    if not config.artifacts or config.runs < 1 or min(config.threads, default=0) < 1:
        raise ValueError("ARTIFACT, --runs and --threads: expected at least one artifact, and numbers of at least 1")
    device = device_name()
    paths = [config.out / f"{folder.name}@{device}.json" for folder in config.artifacts]
    for path in paths:
        if path.exists() and not config.force:
            raise FileExistsError(f"{path}: already exists; pass --force to replace it")
    keys = [(folder, threads) for folder in config.artifacts for threads in config.threads]
    models = [(load_onnx_artifact(folder, n)[1], load_golden(folder)["input"][:1]) for folder, n in keys]
    times_ms = dict(zip(keys, time_in_turn(models, config.runs, "latency"), strict=True))
    for folder, path in zip(config.artifacts, paths, strict=True):
        latencies = {str(threads): summarize(times_ms[folder, threads]) for threads in config.threads}
        result = {**_record(folder, device, config), "latency_ms_by_threads": latencies}
        check_result(result, path)
        write_json(path, result)
        shortest = latencies[str(config.threads[-1])]
        print(f"{path}: p50 {shortest['p50']:.2f} ms, p90 {shortest['p90']:.2f} ms with {config.threads[-1]} threads")
    return paths


def summarize(times_ms: list[float]) -> dict[str, float]:
    """Percentiles, mean and number of runs."""
    p50, p90, p99 = (float(np.percentile(times_ms, q)) for q in (50, 90, 99))
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(np.mean(times_ms)), "num_runs": len(times_ms)}


def device_name() -> str:
    """This machine as a file-name part: processor and number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    processor = found.group(1) if found else platform.processor() or platform.machine()
    cores = len(re.findall(r"^processor\s*:", text, flags=re.MULTILINE)) or 1
    return re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-") + f"-{cores}-cores"


def _record(folder: Path, device: str, config: LatencyConfig) -> dict[str, Any]:
    return {
        "schema_version": RESULT_SCHEMA_VERSION,
        "artifact": folder.name,
        "artifact_sha256": artifact_sha256(folder),
        "device": device,
        "system": platform.platform(),
        "runtime": CPU_RUNTIME,
        "versions": {name: version(name) for name in ("onnxruntime", "numpy")} | {"python": platform.python_version()},
        "num_warmup": NUM_WARMUP,
        "peak_memory_mb": peak_memory_mb(folder),
    }


def peak_memory_mb(folder: Path) -> float:
    """`measure_peak_memory_mb` in a fresh process: the peak of this one would include every other model."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_peak_memory_mb, folder).result()


def measure_peak_memory_mb(folder: Path) -> float:
    """Resident memory that loading and running the model once adds to this process, megabytes."""
    image = load_golden(folder)["input"][:1]
    before = peak_resident_mb()
    _, model = load_onnx_artifact(folder, 1)
    model(image)
    return round(peak_resident_mb() - before, 1)


def peak_resident_mb() -> float:
    """The most memory that this process has held resident, megabytes."""
    if sys.platform == "linux":  # ru_maxrss would start from the parent's peak
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    run_with_settings(LatencyConfig, measure_latency, "python -m benchmarks.latency")
