"""What the folders of runs, artifacts and results say, and what follows from it. No torch."""

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

# The figure by which runs of a task are compared: key in run.json, name, unit, whether larger is better.
HEADLINE = {
    "segment": ("mIoU", "mIoU", "%", True),
    "depth": ("rmse", "RMSE", "m", False),
    "detect": ("segm_mAP", "mask mAP", "%", True),
}
PUBLISHED = ("versions", "seed", "device", "wall_time_s", "weights_sha256", "metrics")  # of a run.json


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A complete run as its files tell it: config.json, run.json, and the lines of metrics.jsonl."""

    folder: Path
    config: dict[str, Any]
    record: dict[str, Any]
    curve: list[dict[str, float]]

    @property
    def task(self) -> str:
        """segment, depth or pretrain."""
        return str(self.config.get("task", "pretrain"))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything found. `results` maps an artifact's hash to the contents of its latency files, of the CPUs of any
    machines; `elsewhere` are the contents of those of other runtimes, browsers above all. `left_out` says of each file
    that cannot be used which field it is and why."""

    runs: list[RunFiles]
    artifacts: list[tuple[Path, Artifact]]
    results: dict[str, list[dict[str, Any]]]
    elsewhere: list[dict[str, Any]]
    left_out: list[str]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A pretrained start against a fresh one, over seeds. `gain` is positive where pretraining helps."""

    task: str
    pretrained: list[float]
    scratch: list[float]
    gain: float
    noise: float

    @property
    def supported(self) -> bool:
        """The gain of the means exceeds the widest spread between seeds: a hint and no test, for with two seeds in
        each arm that happens by chance in about one case of nine."""
        return self.gain > self.noise

    def sentence(self) -> str:
        """The verdict in words, with its figures."""
        _, name, unit, _ = HEADLINE[self.task]
        values = [", ".join(f"{v:.3g}" for v in arm) for arm in (self.pretrained, self.scratch)]
        step = "points" if unit == "%" else unit  # a difference of percentages
        noise = f"spread between seeds {self.noise:.3g} {step}"
        if len(self.pretrained) < 2 or len(self.scratch) < 2:
            outcome = "only one seed: not testable"
        elif self.supported:
            outcome = f"pretraining helps by {self.gain:.3g} {step}, more than the {noise}"
        else:
            outcome = f"pretraining did NOT help by more than seed noise (gain {self.gain:.3g} {step}, {noise})"
        return f"{self.task}: {name} {values[0]} {unit} pretrained, {values[1]} {unit} from scratch: {outcome}."


def read_evidence(runs: Path, artifacts: Path, results: Path) -> Evidence:
    """Read all three folders. What is not complete, damaged or older than a field that is needed is left out.

    Raises:
        FileNotFoundError: a folder is missing or empty, or holds no run or no artifact that can be used; the message
            says what is wrong with those that are there.
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
    return Evidence(
        runs=found_runs,
        artifacts=found_artifacts,
        results=dict(cpu_results),
        elsewhere=[value for value in contents if value["runtime"] != CPU_RUNTIME],
        left_out=left_out + bad_artifacts + bad_results,
    )


def _read_each(folder: Path, what: str, read: Callable[[Path], Found | None]) -> tuple[list[Found], list[str]]:
    """What `read` makes of each entry of a folder, None being none of that kind; and why others cannot be used."""
    found, left_out = [], []
    for path in _entries(folder, what):
        try:
            if (value := read(path)) is not None:
                found.append(value)
        except (ValueError, OSError) as error:  # the message stands on the page, which may be sent around
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
        raise ValueError(f"{folder}: no run.json: the run is not complete; repeat its command to go on")
    record = read_json(source)
    if missing := [name for name in (*PUBLISHED, "parent") if name not in record]:
        raise ValueError(f"{source}: {missing[0]}: missing, so this is no record of a run; train it again, or move the "
                         "folder away")  # fmt: skip
    run = RunFiles(folder=folder, config=read_json(folder / "config.json"), record=record,
                   curve=_read_curve(folder / "metrics.jsonl"))  # fmt: skip
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
    """Raises ValueError if what was found in a field is not of that kind; float: a finite number, 1 is one too."""
    if kind is float:
        holds = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    else:
        holds = isinstance(found, kind)
    if not holds:
        name = {float: "a finite number", str: "text", int: "an integer", dict: "an object"}[kind]
        told = "nothing (was it written by an older version?)" if found is None else repr(found)
        raise ValueError(f"{source}: {field}: found {told}, expected {name}; make it again, or move it away")


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
            raise ValueError(f"{path}: line {number}: found {line[:80]!r}, expected a JSON object ({error}); delete "
                             "the line") from None  # fmt: skip
    return curve


def compare_with_scratch(runs: list[RunFiles]) -> list[Verdict]:
    """For each task, runs that differ in nothing but their start and seed."""
    verdicts = []
    for task, (key, _, _, larger_is_better) in HEADLINE.items():
        groups: dict[str, dict[bool, list[float]]] = {}
        for run in runs:
            if run.task == task and "structure_sha256" not in run.record:  # a pruned run is another model
                settings = {k: v for k, v in run.config.items() if k not in ("out", "seed", "init")}
                arms = groups.setdefault(json.dumps(settings, sort_keys=True), {True: [], False: []})
                arms[run.config.get("init") is not None].append(float(run.record["metrics"][key]))
        for arms in groups.values():
            pretrained, scratch = arms[True], arms[False]
            if pretrained and scratch:
                difference = sum(pretrained) / len(pretrained) - sum(scratch) / len(scratch)
                verdicts.append(
                    Verdict(
                        task=task,
                        pretrained=pretrained,
                        scratch=scratch,
                        gain=difference if larger_is_better else -difference,
                        noise=max(max(arm) - min(arm) for arm in (pretrained, scratch)),
                    )
                )
    return verdicts
