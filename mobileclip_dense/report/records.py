"""Reading and validation of the records of runs, artifacts and results. It does not import torch."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mobileclip_dense.artifact.artifact import Artifact, load_artifact
from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.artifact.result import CPU_RUNTIME, check_result
from mobileclip_dense.artifact.text import read_lines

Found = TypeVar("Found")

# The main figure of each task: key in run.json, name, unit, whether larger is better.
HEADLINE = {
    "segment": ("mIoU", "mIoU", "%", True),
    "depth": ("rmse", "RMSE", "m", False),
    "detect": ("segm_mAP", "mask mAP", "%", True),
}
PUBLISHED = ("versions", "seed", "device", "wall_time_s", "weights_sha256", "metrics")  # of a run.json


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of a complete run: config.json, run.json (`record`) and the lines of metrics.jsonl (`curve`)."""

    folder: Path
    config: dict[str, Any]
    record: dict[str, Any]
    curve: list[dict[str, float]]

    @property
    def task(self) -> str:
        """pretrain, segment, depth or detect."""
        return str(self.config.get("task", "pretrain"))


@dataclass(frozen=True, kw_only=True)
class Records:
    """All records of a report.

    Attributes:
        runs: complete runs.
        artifacts: artifacts with their folders.
        results: CPU latency results of all machines, by the hash of the artifact.
        elsewhere: results of other runtimes, for example browsers.
        left_out: a message for each unusable file, with the field and the reason.
    """

    runs: list[RunFiles]
    artifacts: list[tuple[Path, Artifact]]
    results: dict[str, list[dict[str, Any]]]
    elsewhere: list[dict[str, Any]]
    left_out: list[str]


def read_records(runs: Path, artifacts: Path, results: Path) -> Records:
    """Read all three folders. Incomplete or damaged records and records without a required field are left out.

    Raises:
        FileNotFoundError: a folder is missing or empty, or has no usable run or artifact. The message lists the
            problems of the unusable ones.
    """
    found_runs, left_out = _read_each(runs, "run folders", _read_run)
    _require_some(found_runs, runs, "run that is complete", left_out)
    found_artifacts, bad_artifacts = _read_each(artifacts, "artifact folders", _read_artifact)
    _require_some(found_artifacts, artifacts, "artifact that can be used", bad_artifacts)
    contents, bad_results = _read_each(results, "result files", _read_result)
    cpu_results = defaultdict(list)
    for value in sorted(contents, key=lambda value: str(value["device"])):
        if value["runtime"] == CPU_RUNTIME:
            cpu_results[value["artifact_sha256"]].append(value)
    return Records(
        runs=found_runs,
        artifacts=found_artifacts,
        results=dict(cpu_results),
        elsewhere=[value for value in contents if value["runtime"] != CPU_RUNTIME],
        left_out=left_out + bad_artifacts + bad_results,
    )


def _read_each(folder: Path, what: str, read: Callable[[Path], Found | None]) -> tuple[list[Found], list[str]]:
    """The records of a folder's entries, and messages for entries that cannot be read.

    Args:
        folder: the folder.
        what: name of the entries in error messages.
        read: reads an entry; None for an entry of another kind.
    """
    found, left_out = [], []
    for path in _entries(folder, what):
        try:
            if (value := read(path)) is not None:
                found.append(value)
        except (ValueError, OSError) as error:  # shown on the page, which may be shared: without absolute paths
            left_out.append(str(error).replace(f"{folder}{os.sep}", f"{folder.name}{os.sep}"))
    return found, left_out


def _entries(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected {what}")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not entries:
        raise FileNotFoundError(f"{folder}: found nothing, expected {what}")
    return entries


def _require_some(found: list[Any], folder: Path, what: str, left_out: list[str]) -> None:
    if not found:
        reasons = "".join(f"\n  {reason}" for reason in left_out)
        raise FileNotFoundError(f"{folder}: found no {what}, expected one or more{reasons}")


def _read_result(path: Path) -> dict[str, Any] | None:
    if path.suffix != ".json" or "latency_ms_by_threads" not in (value := read_json(path)):
        return None  # of another benchmark
    check_result(value, path)
    return value


def _read_artifact(folder: Path) -> tuple[Path, Artifact] | None:
    if not folder.is_dir():
        return None
    artifact = load_artifact(folder)
    source = folder / "artifact.json"
    _expect(source, "parent", artifact.parent, dict)
    _expect(source, "parity", artifact.parity, dict)
    _expect(source, "parent.weights_sha256", artifact.parent.get("weights_sha256"), str)
    distance = f"{artifact.precision}_relative_error"
    _expect(source, f"parity.{distance}", artifact.parity.get(distance), float)
    return folder, artifact


def _read_run(folder: Path) -> RunFiles | None:
    if not folder.is_dir():
        return None
    source = folder / "run.json"
    if not source.is_file():
        raise ValueError(f"{folder}: run.json: no such file, the run is incomplete; repeat its command to resume")
    record = read_json(source)
    if missing := [name for name in (*PUBLISHED, "parent") if name not in record]:
        raise ValueError(
            f"{source}: {missing[0]}: found nothing, expected the field of a run; train it again, or move the folder "
            "away"
        )
    run = RunFiles(
        folder=folder,
        config=read_json(folder / "config.json"),
        record=record,
        curve=_read_curve(folder / "metrics.jsonl"),
    )
    settings = folder / "config.json"
    if run.task not in ("pretrain", *HEADLINE):
        raise ValueError(f"{settings}: task: found {run.task}, expected one of {', '.join(HEADLINE)}")
    network = "model" if run.task == "pretrain" else "encoder"
    _expect(settings, network, run.config.get(network), str)
    _expect(settings, "seed", run.config.get("seed"), int)
    _expect(source, "wall_time_s", record["wall_time_s"], float)
    _expect(source, "weights_sha256", record["weights_sha256"], str)
    _expect(source, "metrics", record["metrics"], dict)
    _expect(source, "parent", record["parent"] or {}, dict)
    if run.task in HEADLINE:
        _expect(source, f"metrics.{HEADLINE[run.task][0]}", record["metrics"].get(HEADLINE[run.task][0]), float)
    return run


def _expect(source: Path, field: str, found: object, kind: type) -> None:
    """Verify the type of a field. For float, any finite number is valid.

    Raises:
        ValueError: the value has another type.
    """
    if kind is float:
        holds = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    else:
        holds = isinstance(found, kind)
    if not holds:
        name = {float: "a finite number", str: "text", int: "an integer", dict: "an object"}[kind]
        value = "nothing (is it from an older version?)" if found is None else repr(found)
        raise ValueError(f"{source}: {field}: found {value}, expected {name}; make it again, or move it away")


def _read_curve(path: Path) -> list[dict[str, float]]:
    curve = []
    lines = read_lines(path, "training curve") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            values = dict(json.loads(line))
            if "loss" in values:
                values["step"], values["loss"] = float(values["step"]), float(values["loss"])
            curve.append(values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: line {number}: found {line[:80]!r}, expected a JSON object ({error}); delete the line"
            ) from None
    return curve
