"""`python -m benchmarks.latency ARTIFACT...`: how long ONNX artifacts take on this machine, as result files."""

import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import tyro

from mobileclip_dense.artifact.artifact import load_artifacts, load_golden
from mobileclip_dense.artifact.files import refuse_existing, write_json
from mobileclip_dense.artifact.result import CPU_RUNTIME, RESULT_SCHEMA_VERSION, check_result, result_names
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import MAX_PARALLEL, require, require_numbers
from mobileclip_dense.runtime.device import device_name, peak_resident_mb
from mobileclip_dense.runtime.onnx_model import load_onnx_artifact
from mobileclip_dense.runtime.timing import NUM_WARMUP, summarize, time_in_turn


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
    """Folder for the result files, ARTIFACT@DEVICE.json after the artifact's own name, with its hash where two
    share a name; a file that exists is replaced only with --force."""
    force: bool = False
    """Replace result files that exist."""

    def __post_init__(self) -> None:
        require(self, "artifacts", self.artifacts != (), "at least one artifact")
        require(self, "threads", self.threads != (), "at least one number")
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)
        require_numbers(self, "runs", at_least=1)


def measure_latency(config: LatencyConfig) -> list[Path]:
    """Write one result file per artifact; their paths. An artifact that is given twice is measured once.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`. FileExistsError: a result exists.
    """
    device = device_name()
    loaded = load_artifacts(config.artifacts)
    folders = {digest: folder for digest, (folder, _) in loaded.items()}
    names = {digest: artifact.name for digest, (_, artifact) in loaded.items()}
    threads = tuple(dict.fromkeys(config.threads))
    paths = {digest: config.out / f"{name}@{device}.json" for digest, name in result_names(names).items()}
    for path in paths.values():
        refuse_existing(path, config.force)
    keys = [(digest, count) for digest in folders for count in threads]
    models = [(load_onnx_artifact(folders[d], n)[1], load_golden(folders[d])["input"][:1]) for d, n in keys]
    times_ms = dict(zip(keys, time_in_turn(models, config.runs, "latency"), strict=True))
    for digest, path in paths.items():
        latencies = {str(count): summarize(times_ms[digest, count]) for count in threads}
        record = _record(names[digest], digest, device, peak_memory_mb(folders[digest]))
        result = {**record, "latency_ms_by_threads": latencies}
        check_result(result, path)
        write_json(path, result)
        last = latencies[str(threads[-1])]
        print(f"{path}: p50 {last['p50']:.2f} ms, p90 {last['p90']:.2f} ms with {threads[-1]} threads")
    return list(paths.values())


def _record(name: str, digest: str, device: str, peak_mb: float) -> dict[str, Any]:
    return {
        "schema_version": RESULT_SCHEMA_VERSION,
        "artifact": name,
        "artifact_sha256": digest,
        "device": device,
        "system": platform.platform(),
        "runtime": CPU_RUNTIME,
        "versions": {name: version(name) for name in ("onnxruntime", "numpy")} | {"python": platform.python_version()},
        "num_warmup": NUM_WARMUP,
        "peak_memory_mb": peak_mb,
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


if __name__ == "__main__":
    run_with_settings(LatencyConfig, measure_latency, "python -m benchmarks.latency")
