"""`mobileclip-dense latency ARTIFACT...`: latency and peak memory of artifacts on this machine."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from mobileclip_dense.artifact.artifact import load_artifacts, load_golden
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.artifact.result import result_names
from mobileclip_dense.artifact.targets import TARGETS
from mobileclip_dense.config.check import MAX_PARALLEL, require, require_numbers
from mobileclip_dense.runtime.device import device_name, peak_resident_mb
from mobileclip_dense.runtime.fresh_process import run_in_fresh_process
from mobileclip_dense.runtime.latency_result import latency_result, save_latency
from mobileclip_dense.runtime.predictor import load_model
from mobileclip_dense.runtime.references import find_artifact
from mobileclip_dense.runtime.timing import NUM_WARMUP, time_in_turn


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """Measure the latency and the peak memory of artifacts: ONNX ones in ONNX Runtime on the CPU, Core ML ones on a
    Mac."""

    artifacts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ARTIFACT ...")]
    """Artifact folders, sample:NAME or hf-hub:ORG/NAME."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads of ONNX Runtime to measure with."""
    runs: int = 100
    """Timed runs for each artifact and number of threads, after 5 warm-up runs."""
    out: Path = Path("results")
    """Folder for the result files, ARTIFACT@DEVICE.json. Where two artifacts share a name, their hashes follow it."""
    force: bool = False
    """Replace existing result files."""

    def __post_init__(self) -> None:
        require(self, "artifacts", self.artifacts != (), "at least one artifact")
        require(self, "threads", self.threads != (), "at least one number")
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)
        require_numbers(self, "runs", at_least=1)


def measure_latency(config: LatencyConfig) -> list[Path]:
    """Write one result file per artifact and return the paths. An artifact that is given twice is measured once.

    Raises:
        FileNotFoundError, OSError, ValueError: see `find_artifact` and `load_model`. FileExistsError: a result exists.
    """
    device = device_name()
    loaded = load_artifacts(find_artifact(reference) for reference in config.artifacts)
    folders = {digest: folder for digest, (folder, _) in loaded.items()}
    names = result_names({digest: artifact.name for digest, (_, artifact) in loaded.items()})
    threads = tuple(dict.fromkeys(config.threads))
    paths = {digest: config.out / f"{name}@{device}.json" for digest, name in names.items()}
    for path in paths.values():
        refuse_existing(path, config.force)
    counts = {digest: threads if artifact.runtime == "onnx" else (1,) for digest, (_, artifact) in loaded.items()}
    keys = [(digest, count) for digest in folders for count in counts[digest]]
    models = {key: load_model(folders[key[0]], num_threads=key[1]) for key in keys}
    calls = [partial(models[key].predict, load_golden(folders[key[0]])["input"][:1]) for key in keys]
    times_ms = dict(zip(keys, time_in_turn(calls, config.runs, progress="latency"), strict=True))
    for digest, path in paths.items():
        result = latency_result(
            loaded[digest][1],
            digest,
            {count: times_ms[digest, count] for count in counts[digest]},
            runtime=models[digest, counts[digest][0]].backend,
            num_warmup=NUM_WARMUP,
            libraries=(*TARGETS[loaded[digest][1].runtime].libraries, "numpy"),
            peak_memory_mb=measure_peak_memory_mb(folders[digest]),
        )
        *_, (count, last) = result["latency_ms_by_threads"].items()
        save_latency(path, result, f"p50 {last['p50']:.2f} ms, p90 {last['p90']:.2f} ms, {count} threads")
    return list(paths.values())


def measure_peak_memory_mb(folder: Path) -> float:
    """The resident memory that loading and running a model once adds to a fresh process, megabytes."""
    return run_in_fresh_process(_peak_memory_mb, folder)


def _peak_memory_mb(folder: Path) -> float:
    image = load_golden(folder)["input"][:1]
    before = peak_resident_mb()
    load_model(folder, num_threads=1).predict(image)
    return round(peak_resident_mb() - before, 1)
