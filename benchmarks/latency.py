"""`python -m benchmarks.latency ARTIFACT...`: the latency and the peak memory of ONNX artifacts on this machine."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.harness import latency_result, run_in_fresh_process, save_latency
from mobileclip_dense.artifact.artifact import load_artifacts, load_golden
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.artifact.result import CPU_RUNTIME, result_names
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import MAX_PARALLEL, require, require_numbers
from mobileclip_dense.runtime.device import device_name, peak_resident_mb
from mobileclip_dense.runtime.onnx_model import load_onnx_artifact
from mobileclip_dense.runtime.timing import NUM_WARMUP, time_in_turn


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """Measure the latency and the peak memory of ONNX artifacts in ONNX Runtime on this machine's CPU."""

    artifacts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Artifact folders."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads to measure with."""
    runs: int = 100
    """Timed runs for each artifact and number of threads, after 5 warm-up runs."""
    out: Path = Path("results")
    """Folder for the result files, ARTIFACT@DEVICE.json. ARTIFACT is the name of the artifact, with its hash if two
    artifacts have the same name."""
    force: bool = False
    """Replace existing result files."""

    def __post_init__(self) -> None:
        require(self, "artifacts", self.artifacts != (), "at least one artifact")
        require(self, "threads", self.threads != (), "at least one number")
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)
        require_numbers(self, "runs", at_least=1)


def measure_latency(config: LatencyConfig) -> list[Path]:
    """Write one result file for each artifact and return their paths. A repeated artifact is measured once.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`.
        FileExistsError: a result exists and --force was not given.
    """
    device = device_name()
    loaded = load_artifacts(config.artifacts)
    folders = {digest: folder for digest, (folder, _) in loaded.items()}
    names = result_names({digest: artifact.name for digest, (_, artifact) in loaded.items()})
    threads = tuple(dict.fromkeys(config.threads))
    paths = {digest: config.out / f"{name}@{device}.json" for digest, name in names.items()}
    for path in paths.values():
        refuse_existing(path, config.force)
    keys = [(digest, count) for digest in folders for count in threads]
    models = [partial(load_onnx_artifact(folders[d], n)[1], load_golden(folders[d])["input"][:1]) for d, n in keys]
    times_ms = dict(zip(keys, time_in_turn(models, config.runs, progress="latency"), strict=True))
    for digest, path in paths.items():
        result = latency_result(
            loaded[digest][1],
            digest,
            {count: times_ms[digest, count] for count in threads},
            runtime=CPU_RUNTIME,
            num_warmup=NUM_WARMUP,
            libraries=("onnxruntime", "numpy"),
            peak_memory_mb=measure_peak_memory_mb(folders[digest]),
        )
        last = result["latency_ms_by_threads"][str(threads[-1])]
        save_latency(path, result, f"p50 {last['p50']:.2f} ms, p90 {last['p90']:.2f} ms with {threads[-1]} threads")
    return list(paths.values())


def measure_peak_memory_mb(folder: Path) -> float:
    """The resident memory that loading and running a model once adds to a fresh process, megabytes."""
    return run_in_fresh_process(_peak_memory_mb, folder)


def _peak_memory_mb(folder: Path) -> float:
    image = load_golden(folder)["input"][:1]
    before = peak_resident_mb()
    _, model = load_onnx_artifact(folder, 1)
    model(image)
    return round(peak_resident_mb() - before, 1)


if __name__ == "__main__":
    run_with_settings(LatencyConfig, measure_latency, "python -m benchmarks.latency")
