"""What the folders of runs, artifacts and results say, and what follows from it. No torch."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileclip_dense.contract.artifact import Artifact, artifact_sha256, load_artifact
from mobileclip_dense.contract.files import read_json
from mobileclip_dense.contract.result import CPU_RUNTIME, check_result

# The figure by which runs of a task are compared: key in run.json, name, unit, whether larger is better.
HEADLINE = {
    "segment": ("mIoU", "mIoU", "%", True),
    "depth": ("rmse", "RMSE", "m", False),
    "detect": ("segm_mAP", "mask mAP", "%", True),
}
_PUBLISHED = ("versions", "seed", "device", "wall_time_s", "weights_sha256", "metrics")  # of a run.json


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
    """Everything found. `results` maps an artifact's hash to its latency file's contents, of this
    machine's CPU; `elsewhere` are the contents of those of other runtimes, browsers above all."""

    runs: list[RunFiles]
    artifacts: list[tuple[Path, Artifact]]
    results: dict[str, dict[str, Any]]
    elsewhere: list[dict[str, Any]]


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
    """Read all three folders; runs that are not complete are left out, and named.

    Raises:
        FileNotFoundError: a folder is missing or empty, or no run is complete. ValueError: a run or an artifact is
            damaged, or a latency file is not of the schema.
    """
    found_runs = []
    for folder in _entries(runs, "run folders"):
        if (folder / "run.json").is_file():
            found_runs.append(_read_run(folder))
        elif folder.is_dir():
            print(f"{folder}: left out, the run is not complete")
    if not found_runs:
        raise FileNotFoundError(f"{runs}: found no run that is complete, expected one or more folders with a run.json")
    found_artifacts = [(folder, load_artifact(folder)) for folder in _entries(artifacts, "artifact folders")]
    contents = []
    for path in _entries(results, "result files"):
        if path.suffix == ".json" and "latency_ms_by_threads" in (value := read_json(path)):  # others: other benchmarks
            check_result(value, path)
            contents.append(value)
    return Evidence(
        runs=found_runs,
        artifacts=found_artifacts,
        results={value["artifact_sha256"]: value for value in contents if value["runtime"] == CPU_RUNTIME},
        elsewhere=[value for value in contents if value["runtime"] != CPU_RUNTIME],
    )


def _entries(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected {what}")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not entries:
        raise FileNotFoundError(f"{folder}: found nothing, expected {what}")
    return entries


def _read_run(folder: Path) -> RunFiles:
    record = read_json(folder / "run.json")
    if missing := [name for name in (*_PUBLISHED, "parent") if name not in record]:
        raise ValueError(f"{folder / 'run.json'}: {missing[0]}: missing, so this is no record of a run; train it "
                         "again, or move the folder away")  # fmt: skip
    return RunFiles(folder=folder, config=read_json(folder / "config.json"), record=record,
                    curve=_read_curve(folder / "metrics.jsonl"))  # fmt: skip


def _read_curve(path: Path) -> list[dict[str, float]]:
    curve = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), start=1):
        try:
            curve.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
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
                arms[run.config["init"] is not None].append(float(run.record["metrics"][key]))
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


def table_rows(evidence: Evidence) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per artifact: size, distance to PyTorch, accuracy, latency and memory where measured."""
    header = ["artifact", "parameters", "size MB", "distance to PyTorch", "accuracy", "1 thread, p50 / p90 ms",
              "2 threads, p50 / p90 ms", "peak MB"]  # fmt: skip
    rows = []
    for folder, artifact in evidence.artifacts:
        size = sum(entry["bytes"] for name, entry in artifact.files.items() if name != "golden.npz")
        result = evidence.results.get(artifact_sha256(folder))
        latencies = result["latency_ms_by_threads"] if result else {}
        rows.append(
            [
                artifact.name,
                f"{artifact.num_parameters / 1e6:.2f} M",
                f"{size / 1e6:.2f}",
                _distance(artifact),
                _accuracy(artifact, evidence.runs),
                *(f"{latencies[n]['p50']:.2f} / {latencies[n]['p90']:.2f}" if n in latencies else "-" for n in "12"),
                f"{result['peak_memory_mb']:.0f}" if result else "-",
            ]
        )
    return header, rows


def elsewhere_rows(evidence: Evidence) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per result of another runtime for one of these very artifacts."""
    names = {artifact_sha256(folder): artifact.name for folder, artifact in evidence.artifacts}
    rows = [
        [names[value["artifact_sha256"]], value["device"], value["runtime"], threads,
         f"{latency['p50']:.2f} / {latency['p90']:.2f}", str(latency["num_runs"])]
        for value in evidence.elsewhere
        if value["artifact_sha256"] in names
        for threads, latency in value["latency_ms_by_threads"].items()
    ]  # fmt: skip
    return ["artifact", "device", "runtime", "threads", "p50 / p90 ms", "runs"], rows


def summary(evidence: Evidence, verdicts: list[Verdict]) -> dict[str, Any]:
    """All figures with what they were measured with, for a result file that may be published: no path of a machine."""
    header, rows = table_rows(evidence)
    return {
        "runs": {run.folder.name: _published(run) for run in evidence.runs},
        "artifacts": {"header": header, "rows": rows},
        "exports": [_export(folder, artifact) for folder, artifact in evidence.artifacts],
        "latencies": [*evidence.results.values(), *evidence.elsewhere],
        "verdicts": [{**dataclasses.asdict(v), "supported": v.supported, "sentence": v.sentence()} for v in verdicts],
    }


def _export(folder: Path, artifact: Artifact) -> dict[str, Any]:
    """Of which weights an artifact is, and what its export measured of it."""
    return {
        "artifact": artifact.name,
        "artifact_sha256": artifact_sha256(folder),
        "precision": artifact.precision,
        "weights_sha256": artifact.parent["weights_sha256"],
        "parity": artifact.parity,
    }


def _published(run: RunFiles) -> dict[str, Any]:
    settings = {name: _last_part(value) for name, value in run.config.items()}
    parent = run.record["parent"] and run.record["parent"]["weights_sha256"]
    published = {name: run.record[name] for name in _PUBLISHED} | {"num_parameters": run.record.get("num_parameters")}
    if "pruned" in run.record:
        published["as_pruned"] = True  # its settings are those of the run that was pruned
    return {"settings": settings, "parent_weights_sha256": parent} | published


def _last_part(value: Any) -> Any:
    """Of a path, or of each in a list; anything else as it is: where a folder lies is nobody's business."""
    if isinstance(value, list):
        return [_last_part(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _distance(artifact: Artifact) -> str:
    return f"{artifact.parity[f'{artifact.precision}_relative_error']:.0e}"


def _accuracy(artifact: Artifact, runs: list[RunFiles]) -> str:
    """Of the exported model where the export measured it, else of the run it came from."""
    if artifact.task not in HEADLINE:
        cosine = artifact.parity.get("mean_cosine")
        return "-" if cosine is None else f"cosine {cosine:.4f}"
    key, name, unit, _ = HEADLINE[artifact.task]
    figure = "miou_percent" if artifact.task == "segment" else "rmse_m"
    if figure in artifact.parity:  # both on images resized to the model's input, unlike the run's own figure
        return f"{name} {artifact.parity[figure]:.3g} {unit} (before: {artifact.parity[f'reference_{figure}']:.3g})"
    for run in runs:
        if run.record["weights_sha256"] == artifact.parent["weights_sha256"] and artifact.precision == "fp32":
            return f"{name} {run.record['metrics'][key]:.3g} {unit}"
    return "-"
