"""Measurement of the compared models on this machine: peak memory one by one, latency in interleaved rounds.

All models together would not fit into the memory of a small machine. In each round, every model is loaded, warmed up,
timed and dropped, so that a slow period of the machine affects all models. Measurements are stored in the work folder,
so that an interrupted run resumes with its next round.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import provenance
from mobileclip_dense.apps.latency import measure_peak_memory_mb
from mobileclip_dense.artifact.artifact import artifact_sha256, load_artifact, load_golden
from mobileclip_dense.artifact.files import read_json, write_json
from mobileclip_dense.artifact.result import CPU_RUNTIME
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.onnx_model import OnnxModel
from mobileclip_dense.runtime.timing import summarize, time_in_turn

NUM_WARMUP = 2  # runs after each loading
SLOW_MS = 1000.0  # a slower model runs once per round, and only in the first _SLOW_ROUNDS
_RUNS_A_ROUND = 3
_SLOW_ROUNDS = 5
_NOTES = "measured.json"

Times = dict[str, dict[str, list[float]]]  # artifact's name -> threads -> milliseconds


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The figures of one artifact; `latency_ms_by_threads` as in a result file."""

    artifact_sha256: str
    latency_ms_by_threads: dict[str, dict[str, float]]
    peak_memory_mb: float


def measure_artifacts(
    folders: Sequence[Path], threads: Sequence[int], num_rounds: int, work: Path
) -> dict[Path, Measurement]:
    """Measure the peak memory of all artifacts, then their latency in rounds.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`.
    """
    hashes = {folder: artifact_sha256(folder) for folder in folders}
    for folder in folders:
        load_artifact(folder)
    notes = work / _NOTES
    stored: dict[str, Any] = read_json(notes) if notes.is_file() else {}
    settings = {"artifacts": sorted(hashes.values()), "threads": list(threads), **describe_machine()}
    if stored.get("settings") != settings:
        if stored:
            print(f"{notes}: measured of other artifacts or on another machine; starting over")
        stored = {"settings": settings, "peak_memory_mb": {}, "rounds": []}
    for folder in progress_bar(folders, "peak memory", unit="model"):
        if folder.name not in stored["peak_memory_mb"]:
            stored["peak_memory_mb"][folder.name] = measure_peak_memory_mb(folder)
            write_json(notes, stored)
    for _ in progress_bar(range(len(stored["rounds"]), num_rounds), "latency", unit="round"):
        stored["rounds"].append(_measure_round(folders, threads, stored["rounds"]))
        write_json(notes, stored)
    rounds = stored["rounds"][:num_rounds]
    return {
        folder: Measurement(
            artifact_sha256=hashes[folder],
            latency_ms_by_threads={str(n): summarize(_times_of(rounds, folder.name, str(n))) for n in threads},
            peak_memory_mb=stored["peak_memory_mb"][folder.name],
        )
        for folder in folders
    }


def _measure_round(folders: Sequence[Path], threads: Sequence[int], before: list[Times]) -> Times:
    times: Times = {}
    for folder in folders:
        image, path = load_golden(folder)["input"][:1], folder / "model.onnx"
        for count in threads:
            known = _times_of(before, folder.name, str(count))
            if len(before) >= _SLOW_ROUNDS and min(known) > SLOW_MS:
                continue
            run_model = partial(OnnxModel(path, count), image)
            (times_ms,) = time_in_turn([run_model], 1, num_warmup=NUM_WARMUP)
            while len(times_ms) < _RUNS_A_ROUND and times_ms[-1] <= SLOW_MS:
                times_ms += time_in_turn([run_model], 1, num_warmup=0)[0]
            times.setdefault(folder.name, {})[str(count)] = times_ms
            del run_model
    return times


def discard_notes(work: Path) -> None:
    """Delete the stored measurements of an interrupted run."""
    (work / _NOTES).unlink()


def _times_of(rounds: list[Times], name: str, threads: str) -> list[float]:
    return [value for times in rounds for value in times.get(name, {}).get(threads, [])]


def describe_machine() -> dict[str, Any]:
    """The device, system, runtime and versions, for the result file."""
    return {
        **provenance(device_name(), "onnxruntime", "onnx", "torch", "timm", "mmsegmentation"),
        "system": platform.platform(),
        "runtime": CPU_RUNTIME,
        "num_warmup": NUM_WARMUP,
    }
